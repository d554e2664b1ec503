"""Training: the `Trainer`, its loop, and reading checkpoints back."""

from __future__ import annotations

from dlkit._doors import missing
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint
from dlkit.runs.every import Every
from dlkit.runs.history import History
from dlkit.runs.state import Cursor, Run
from dlkit.training.rehearsal import LearningRateCurve
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.summarizing import Summary
from dlkit.training.trainer import Trainer

__all__ = [
    "CheckpointWarning",
    "Cursor",
    "Every",
    "History",
    "LearningRateCurve",
    "ReuseFeatures",
    "Run",
    "Summary",
    "Trainer",
    "load_checkpoint",
]

__getattr__ = missing(__name__, __all__)
