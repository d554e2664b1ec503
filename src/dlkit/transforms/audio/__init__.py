"""What happens to a recording between file and model: plain data that JSON can hold. Names load when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.transforms.audio.augment import AudioAugment as AudioAugment
    from dlkit.transforms.audio.mel import MFCC as MFCC
    from dlkit.transforms.audio.mel import LogMel as LogMel
    from dlkit.transforms.audio.mel import SpectrogramMask as SpectrogramMask
    from dlkit.transforms.audio.resampling import resample as resample
    from dlkit.transforms.audio.spec import AudioPreprocessing as AudioPreprocessing

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "AudioAugment": "dlkit.transforms.audio.augment",
        "AudioPreprocessing": "dlkit.transforms.audio.spec",
        "LogMel": "dlkit.transforms.audio.mel",
        "MFCC": "dlkit.transforms.audio.mel",
        "SpectrogramMask": "dlkit.transforms.audio.mel",
        "resample": "dlkit.transforms.audio.resampling",
    },
)
