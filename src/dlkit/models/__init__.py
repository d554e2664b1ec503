"""Small baseline models: quick to train on two cores, and honest numbers to beat.

Importing this room registers them, so that a model file finds them by their names.
"""

from __future__ import annotations

from dlkit._doors import missing
from dlkit.models.audio import AudioClassifier
from dlkit.models.blend import TabularBlend
from dlkit.models.convnet import SmallConvNet
from dlkit.models.encoder import PretrainedTextClassifier
from dlkit.models.ensemble import TabularEnsemble
from dlkit.models.mixed import MixedClassifier, MixedRegressor
from dlkit.models.tabular import TabularMLP
from dlkit.models.text import TextClassifier
from dlkit.models.tfidf import TfidfLinear
from dlkit.models.trees import TabularTrees

__all__ = [
    "AudioClassifier",
    "MixedClassifier",
    "MixedRegressor",
    "PretrainedTextClassifier",
    "SmallConvNet",
    "TabularBlend",
    "TabularEnsemble",
    "TabularMLP",
    "TabularTrees",
    "TextClassifier",
    "TfidfLinear",
]

__getattr__ = missing(__name__, __all__)
