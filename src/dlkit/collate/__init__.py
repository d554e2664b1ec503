"""Batches of samples that differ in length: padded with masks, nested, or packed one after the other.

`collating` is the `collate_fn`, `padding` the copying, `structure` what stands where in a sample or batch.
"""

from dlkit._doors import missing
from dlkit.collate.collating import PadCollate, unpad

__all__ = ["PadCollate", "unpad"]

__getattr__ = missing(__name__, __all__)
