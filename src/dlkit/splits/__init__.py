"""Cut samples into parts, and prove that no sample is on both sides.

========= ==========================================================
`fold`    one of several cuts of the same samples
`cutting` indices and keys into parts
`folding` all folds of a dataset
`keys`    a number per sample, the same for equal ones
`leaks`   the proof
========= ==========================================================

Everything here works on indices, labels and keys and knows no dataset.
"""

from __future__ import annotations

from dlkit._doors import missing
from dlkit.splits.cutting import Fractions, num_parts, part_of_keys, shares_of, split_indices
from dlkit.splits.fold import Fold
from dlkit.splits.folding import folds
from dlkit.splits.keys import content_keys
from dlkit.splits.leaks import LeakReport, check_leaks

__all__ = [
    "Fold",
    "Fractions",
    "LeakReport",
    "check_leaks",
    "content_keys",
    "folds",
    "num_parts",
    "part_of_keys",
    "shares_of",
    "split_indices",
]

__getattr__ = missing(__name__, __all__)
