"""Pictures of a training: samples with their predictions, curves over the epochs, the confusion matrix, learning rates,
ROC, calibration, the worst mistakes;
and of recordings: waveforms, spectrograms, and a player for notebooks.

Each function returns a `matplotlib.figure.Figure` and, given a `path`, also saves it, whole or not at all; the format
comes from the file's ending. They never touch `pyplot` or its global state, so they work on servers, in threads and in
notebooks. Nothing is said by colour alone, and the colours can be distinguished by colour-blind people.
Needs the extra `plots` (docs/how-to/install.md).
"""

from __future__ import annotations

from dlkit._doors import missing
from dlkit.plots.grid import sample_grid
from dlkit.plots.lines import curves, lr_curve
from dlkit.plots.matrix import confusion_matrix
from dlkit.plots.sound import play, spectrogram, waveform
from dlkit.plots.trust import calibration_curve, mistakes, roc_curve

__all__ = [
    "calibration_curve",
    "confusion_matrix",
    "curves",
    "lr_curve",
    "mistakes",
    "play",
    "roc_curve",
    "sample_grid",
    "spectrogram",
    "waveform",
]

__getattr__ = missing(__name__, __all__)
