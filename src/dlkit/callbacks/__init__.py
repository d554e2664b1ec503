"""What happens beside the training loop: saving, stopping, schedules, averages, logs."""

from __future__ import annotations

from dlkit._doors import missing
from dlkit.callbacks.back_to_best import BackToBest
from dlkit.callbacks.base import Callback
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.early_stopping import EarlyStopping
from dlkit.callbacks.ema import EMA
from dlkit.callbacks.frozen import CheckFrozen
from dlkit.callbacks.gradients import ClipGradients
from dlkit.callbacks.guards import StopOnNaN, TimeLimit
from dlkit.callbacks.learning_rate import LearningRate
from dlkit.callbacks.loggers import CSVLogger, JSONLinesLogger, MLflowLogger, TensorBoardLogger, WandbLogger
from dlkit.callbacks.progress import Progress
from dlkit.callbacks.unfreeze import Unfreeze

__all__ = [
    "BackToBest",
    "CSVLogger",
    "Callback",
    "CheckFrozen",
    "Checkpoint",
    "ClipGradients",
    "EMA",
    "EarlyStopping",
    "JSONLinesLogger",
    "LearningRate",
    "MLflowLogger",
    "Progress",
    "StopOnNaN",
    "TensorBoardLogger",
    "TimeLimit",
    "Unfreeze",
    "WandbLogger",
]

__getattr__ = missing(__name__, __all__)
