"""Which model, loss, rate and preparation suit the data, unless the caller says so; every choice is told."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit import rng
from dlkit._showing import Lines
from dlkit.errors import ArgumentError, DownloadError
from dlkit.loader import DataLoader
from dlkit.models import (
    AudioClassifier,
    SmallConvNet,
    TabularEnsemble,
    TabularMLP,
    TabularTrees,
    TextClassifier,
    TfidfLinear,
)
from dlkit.recipes.reading import Data, encoded_by
from dlkit.tokens import Vocabulary
from dlkit.transfer.freezing import freeze
from dlkit.transfer.groups import param_groups
from dlkit.transfer.inputs import SMALLEST
from dlkit.transfer.models import create_model
from dlkit.transforms import Augment, Preprocessing, for_evaluation
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing, LogMel

__all__ = ["BACKBONE", "Choice", "ENOUGH_HERTZ", "Wish", "choose", "class_weights", "listening_to", "models_for"]

#: Torchvision's, because its weights come with a hash that is checked; small, known to everybody, and good frozen.
BACKBONE = "torchvision/resnet18"
ENOUGH_HERTZ = 16_000  # speech, and most of what tells sounds apart, lies below the half of it
SMALL_SIDE = 64  # pixels up to which a small network from scratch sees all there is
_TEXT_RATES = {"bag": 1e-2, "gru": 2e-3, "transformer": 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What the caller has said about the model; None where dlkit is to choose.

    Attributes:
        arch: See `train`.
        weights: See `train`.
        pretrained: See `train`.
        freeze: See `train`.
        views: See `train`.
        image_size: See `train`.
        sample_rate: See `train`.
        seconds: See `train`.
        class_weights: See `train`.
        seed: See `train`.
    """

    arch: str | None = None
    weights: str | Path | None = None
    pretrained: bool = True
    freeze: bool | None = None
    views: int | None = None
    image_size: int | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    class_weights: str | Mapping[str, float] | None = None
    seed: int = 0


@dataclasses.dataclass(kw_only=True, eq=False)
class Choice:
    """A model and how to train it.

    Attributes:
        arch: Its name.
        model: With fresh or pretrained weights, frozen where that was chosen.
        loss: For logits.
        metrics: Names.
        lr: The learning rate; of the head where there is a backbone.
        epochs: Of a usual training.
        batch_size: Of a usual training.
        patience: Epochs without an improvement after which to stop, or with `plateau` to go back to the best weights.
        plateau: The rate stays until there is no improvement, see `BackToBest`; else it falls along half a cosine.
        frozen: Only the head is trained.
        why: The choices in sentences.
        preprocessing: Of images and sounds: for evaluation, and for the model file.
        training: Of images and sounds: for training.
        groups: The optimizer's groups for a learning rate; None for those parameters that learn.
        fit: Makes the fitted model in one go, instead of a training in steps; rate, epochs and so on then mean nothing.
            Gives the data as this model takes it, too, and what was chosen, in a sentence.
    """

    arch: str
    model: nn.Module
    loss: nn.Module
    metrics: list[str]
    lr: float
    epochs: int
    batch_size: int
    patience: int
    plateau: bool = False
    frozen: bool = False
    why: list[str] = dataclasses.field(default_factory=list)
    preprocessing: Any = None
    training: Any = None
    groups: Callable[[float], Any] | None = None
    fit: Callable[[], tuple[nn.Module, Data, str]] | None = None


def choose(data: Data, wish: Wish) -> Choice:
    """Make the model for the data.

    Args:
        data: From `read_data`.
        wish: What the caller has said.

    Raises:
        ArgumentError: what was said does not go together, or is not known.
        DownloadError: pretrained weights are needed and could not be fetched; the message says what to do without.
    """
    weights = None if wish.class_weights is None else class_weights(data, wish.class_weights)
    with rng.isolated(rng.derive(wish.seed, rng.MODEL)):
        choice = _chosen(data, wish)
    if weights is not None:
        choice.loss = nn.CrossEntropyLoss(weight=weights)
        told = ", ".join(f"{name} {weight:.4g}" for name, weight in zip(data.classes, weights.tolist(), strict=True))
        choice.why.append(f"weights of the classes in the loss: {told}"[:500])
    return choice


def _chosen(data: Data, wish: Wish) -> Choice:
    if data.kind == "table":
        return _for_table(data, wish)
    if data.kind == "sounds":
        return _for_sounds(data, wish)
    return _for_texts(data, wish) if data.kind == "text" else _for_images(data, wish)


def class_weights(data: Data, given: str | Mapping[str, float]) -> Tensor:
    """What each class counts in the loss.

    Args:
        data: Of a classification.
        given: "balanced", so that all classes together count the same, however rare: samples / (classes * samples of
            the class), as scikit-learn has it; or a weight above 0 for each class by its name.

    Returns:
        float32 [classes].

    Raises:
        ArgumentError: there are no classes, or the weights are not theirs.
    """
    if data.task != "classification":
        raise ArgumentError(
            f"class_weights={given!r}: this is a {data.task}, which has no classes of which one is right"
        )
    if isinstance(given, str):
        if given != "balanced":
            raise ArgumentError(f"class_weights must be 'balanced' or a weight for each class, not {given!r}")
        counts = torch.bincount(data.train.targets.long(), minlength=len(data.classes))
        return (len(data.train.targets) / (len(data.classes) * counts.clamp_min(1))).float()
    if set(given) != set(data.classes):
        raise ArgumentError(
            f"class_weights must have a weight for each class ({', '.join(data.classes)[:300]}), and has them for "
            f"{', '.join(map(str, given))[:300]}"
        )
    if not all(0 < float(weight) < math.inf for weight in given.values()):
        raise ArgumentError(f"class_weights must be numbers above 0, not {dict(given)!r:.300}")
    return torch.tensor([float(given[name]) for name in data.classes])


def models_for(kind: str) -> list[str]:
    """What `arch` may be for a table or for texts, the default first.

    Args:
        kind: "table" or "text".
    """
    return list(_TABLE_MODELS) if kind == "table" else ["linear", *_TEXT_RATES]


def _refuse(wish: Wish, *names: str, why: str) -> None:
    for name in names:
        if getattr(wish, name) not in (None, True if name == "pretrained" else None, False):
            raise ArgumentError(f"{name}={getattr(wish, name)!r}: {why}")


def _for_table(data: Data, wish: Wish) -> Choice:
    _refuse(wish, "weights", "freeze", "views", "image_size", why="this is for images, and the data is a table")
    if wish.arch not in (None, *_TABLE_MODELS):
        raise ArgumentError(f"arch={wish.arch!r}: for tables there are {', '.join(_TABLE_MODELS)}")
    losses = {"classification": nn.CrossEntropyLoss, "regression": nn.MSELoss}
    metrics = {"regression": ["rmse", "mae", "r2"], "multilabel": ["f1"]}
    return _TABLE_MODELS[wish.arch or "ensemble"](
        data,
        wish,
        loss=losses.get(data.task, nn.BCEWithLogitsLoss)(),
        metrics=metrics.get(data.task, ["accuracy"]),
    )


def _ensemble(data: Data, wish: Wish, **settings: Any) -> Choice:
    """Measured in `bench/defaults.py`: about 3,000 steps, at least 20 epochs, and a shorter path for large tables."""
    del wish
    rows, model = len(data.train), TabularEnsemble.for_data(data.train)
    batch_size = next((size for limit, size in _TABLE_BATCHES if rows < limit), _LARGE_BATCH)
    steps = -(-rows // batch_size)
    large = batch_size == _LARGE_BATCH
    epochs = max(3, 6_000 // steps) if large else min(100, max(20, -(-3_000 // steps)))
    return Choice(
        arch="ensemble",
        model=model,
        lr=3e-3,
        epochs=epochs,
        batch_size=batch_size,
        patience=1 if large else 4,
        plateau=True,
        groups=lambda lr: _decaying(model, lr),
        why=["model: TabularEnsemble, eight networks of two hidden layers side by side"],
        **settings,
    )


def _decaying(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Weights, which decay, and biases, which do not."""
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    weights = [value for name, value in model.named_parameters() if not name.endswith("bias")]
    return [{"params": weights, "lr": lr}, {"params": biases, "lr": lr, "weight_decay": 0.0}]


def _mlp(data: Data, wish: Wish, **settings: Any) -> Choice:
    del wish
    few = len(data.train) < 5_000
    hidden = (64, 32) if few else (256, 128)
    return Choice(
        arch="mlp",
        model=TabularMLP(data.train.schema, hidden=hidden, dropout=0.3),
        lr=3e-3 if few else 2e-3,
        epochs=60 if few else 15,
        batch_size=32 if few else 256,
        patience=10 if few else 4,
        why=[f"model: TabularMLP with hidden layers of {hidden[0]} and {hidden[1]}"],
        **settings,
    )


def _boosting(data: Data, wish: Wish, **settings: Any) -> Choice:
    weights: dict[str, Any] = {}
    if wish.class_weights is not None:
        weights = {"class_weight": dict(enumerate(class_weights(data, wish.class_weights).tolist()))}
    return Choice(
        arch="boosting",
        model=TabularTrees(data.train.schema),
        lr=1.0,
        epochs=1,
        batch_size=1024,
        patience=1,
        fit=lambda: (TabularTrees.for_data(data.train, seed=wish.seed, **weights), data, ""),
        why=["model: TabularTrees, scikit-learn's HistGradientBoosting with its own settings"],
        **settings,
    )


_TABLE_MODELS: dict[str, Callable[..., Choice]] = {"ensemble": _ensemble, "boosting": _boosting, "mlp": _mlp}
_TABLE_BATCHES = ((1_000, 32), (3_000, 64), (8_000, 128), (100_000, 256))  # rows below which a step has so many
_LARGE_BATCH = 1024


def _for_texts(data: Data, wish: Wish) -> Choice:
    _refuse(wish, "weights", "freeze", "views", "image_size", why="this is for images, and the data is texts")
    encoder = wish.arch or "linear"
    if encoder not in models_for("text"):
        raise ArgumentError(f"arch={encoder!r}: for texts there are {', '.join(models_for('text'))}")
    if not data.classes:
        raise ArgumentError("the targets of the texts are amounts, not classes; dlkit has no ready recipe for those")
    vocabulary, types = len(data.train.vocabulary), 1 if data.train.pairs is None else 2
    if encoder == "linear":
        return Choice(
            arch=encoder,
            model=TfidfLinear(vocabulary, len(data.classes), num_types=types),
            loss=nn.CrossEntropyLoss(),
            metrics=["accuracy"],
            lr=1.0,
            epochs=1,
            batch_size=256,
            patience=1,
            fit=lambda: _fitted_to_texts(data, wish),
            why=["model: TfidfLinear, logistic regression on TF-IDF"],
        )
    return Choice(
        arch=encoder,
        model=TextClassifier(vocabulary, len(data.classes), encoder=encoder, num_types=types),  # type: ignore[arg-type]
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
        lr=_TEXT_RATES[encoder],
        epochs=10,
        batch_size=64,
        patience=3,
        why=[f"model: TextClassifier, encoder {encoder!r}"],
    )


def _for_sounds(data: Data, wish: Wish) -> Choice:
    """From scratch, or a backbone for images that looks at spectrograms; both at a rate that the files have."""
    _refuse(wish, "image_size", why="this is for images, and the data is sounds")
    rate, seconds = wish.sample_rate or min(data.rate, ENOUGH_HERTZ), wish.seconds or data.seconds
    prepared = AudioPreprocessing(sample_rate=rate, seconds=seconds)
    heard = f"{seconds:g} seconds at {rate:,} Hz"
    varied = dataclasses.replace(prepared, augment=AudioAugment(shift=min(0.1, seconds / 8), noise=(10, 40)))
    if wish.arch not in (None, "small"):
        choice = _backbone(data, wish, str(wish.arch), listening_to(prepared))
        return dataclasses.replace(
            choice,
            preprocessing=prepared,
            training=varied if wish.views is not None or not choice.frozen else prepared,
            why=[f"{choice.why[0]}, {heard} as a spectrogram"],
        )
    _refuse(wish, "weights", "freeze", "views", why="the small network learns from scratch; choose a backbone: arch=")
    steps = -(-len(data.train) // 32)
    return Choice(
        arch="small",
        model=AudioClassifier(len(data.classes), rate),
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
        lr=3e-3,
        epochs=min(60, max(15, -(-2_000 // steps))),
        batch_size=32,
        patience=15,
        why=[f"model: AudioClassifier from scratch, {heard}"],
        preprocessing=prepared,
        training=varied,
    )


def listening_to(prepared: AudioPreprocessing) -> LogMel:
    """The spectrogram that a backbone for images looks at: as many bands as it needs, each with a frequency of its own.

    Args:
        prepared: The waveforms.
    """
    rate = prepared.sample_rate
    return LogMel(sample_rate=rate, num_mels=SMALLEST, window=rate // 20, hop=rate // 100)


def _fitted_to_texts(data: Data, wish: Wish) -> tuple[nn.Module, Data, str]:
    """Of several ways to cut a text, and strengths, what has the smallest loss on the validation part."""
    found: list[tuple[float, str, nn.Module, Data]] = []
    weights = None if wish.class_weights is None else class_weights(data, wish.class_weights)
    loss = nn.CrossEntropyLoss(weight=weights)
    for name, cut in _cuts(data):
        for strength, fitted in zip(_STRENGTHS, TfidfLinear.path(cut.train, _STRENGTHS, loss), strict=True):
            value = _loss_on(fitted, cut.val, weights)
            found.append((value, f"{name}, strength {strength:g} (validation loss {value:.4g})", fitted, cut))
            if len(found) > 1 and found[-2][3] is cut and value > found[-2][0]:
                break
    _, told, model, cut = min(found, key=lambda row: row[0])
    return model, cut, told


def _cuts(data: Data) -> Iterator[tuple[str, Data]]:
    """The data as it was cut on demand; else in lower case by words and pairs, and where they are few by characters."""
    if data.options.get("tokenizer"):
        yield f"tokens: {data.options['tokenizer']}", data
        return
    train = data.train
    parts = [train.texts, *([] if train.pairs is None else [train.pairs])]
    for name in ("words-and-pairs", "runs"):
        if name == "runs" and sum(each.num_bytes for each in parts) > _MANY_BYTES:
            return
        cleaning = dataclasses.replace(train.vocabulary.cleaning, lower=True)
        texts = itertools.chain.from_iterable(parts)
        # Tokens that come once count as well: leaving them out cost a point on Korean reviews.
        vocabulary = Vocabulary.fit(texts, tokenizer=name, cleaning=cleaning, max_size=_MANY_TOKENS)
        yield f"tokens: {name}", encoded_by(data, dataclasses.replace(train.spec, encoder=vocabulary))


@torch.no_grad()
def _loss_on(model: nn.Module, part: Any, weights: Tensor | None) -> float:
    batches = [(model(**inputs), targets) for inputs, targets in DataLoader(part, 256)]
    outputs, targets = (torch.cat(each) for each in zip(*batches, strict=True))
    return float(F.cross_entropy(outputs, targets, weight=weights))


_STRENGTHS = (1, 4, 16, 64)
_MANY_TOKENS = 1_000_000  # the most frequent ones, where there are more
_MANY_BYTES = 3_000_000  # of texts, of which runs of characters would be too many; and long texts gain least by them


def _for_images(data: Data, wish: Wish) -> Choice:
    small = data.side <= SMALL_SIDE and wish.weights is None
    arch = wish.arch or ("small" if small else BACKBONE)
    return _small(data, wish) if arch == "small" else _backbone(data, wish, arch)


def _small(data: Data, wish: Wish) -> Choice:
    _refuse(wish, "weights", "freeze", "views", why="the small network learns from scratch; choose a backbone: arch=")
    tiny = data.side <= SMALL_SIDE
    side = wish.image_size or (data.side if tiny else SMALL_SIDE)
    side = max(side, 8)
    prepared = data.train.preprocessing if data.kind == "letters" else _own_size(side, stretch=tiny, grey=data.grey)
    if data.kind == "letters" and wish.image_size not in (None, 28):
        raise ArgumentError(f"image_size={wish.image_size}: these letters are 28 x 28 pixels as they are")
    reason = f"images of {data.side} pixels are too small for pretrained ones" if wish.arch is None else "as asked for"
    return Choice(
        arch="small",
        model=SmallConvNet(len(data.classes), in_chans=1 if data.grey else 3),
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
        lr=3e-3 if tiny else 1e-3,
        epochs=8 if len(data.train) > 5_000 else 20,
        batch_size=128 if len(data.train) > 5_000 else 32,
        patience=5,
        why=[f"model: SmallConvNet from scratch ({reason}), {side} x {side} pixels"],
        preprocessing=prepared,
        # A mirrored or cut letter may be another one, so small images stay as they are.
        training=prepared if tiny else _augmented(prepared),
    )


def _backbone(data: Data, wish: Wish, arch: str, log_mel: LogMel | None = None) -> Choice:
    loaded = wish.weights is not None or wish.pretrained
    frozen = loaded if wish.freeze is None else wish.freeze
    _check_backbone(wish, loaded, frozen)
    side = 28 if data.kind == "letters" else wish.image_size
    model = _created(arch, data, wish, side, log_mel)
    prepared: Any = data.train.preprocessing if data.kind == "letters" else model.preprocessing
    if frozen:
        freeze(model)
    origin = f"weights of {wish.weights}" if wish.weights else "pretrained" if wish.pretrained else "random weights"
    learns = "only its head learns" if frozen else "all of it learns"
    varied = data.kind == "images" and (wish.views is not None or not frozen)
    shown = "" if log_mel is not None else f", {prepared.size[0]} x {prepared.size[1]} pixels"
    return Choice(
        arch=arch,
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
        lr=1e-3,
        epochs=20 if frozen else 10,
        batch_size=32,
        patience=5,
        frozen=frozen,
        why=[f"model: {arch}, {origin}; {learns}{shown}"],
        preprocessing=prepared,
        training=_augmented(prepared) if varied else prepared,
        groups=None if frozen else lambda lr: param_groups(model, lr, backbone_lr=lr / 10, layer_decay=0.8),
    )


def _check_backbone(wish: Wish, loaded: bool, frozen: bool) -> None:
    if frozen and not loaded:
        raise ArgumentError("freeze=True with pretrained=False would train a head on random features; leave one out")
    if wish.views is not None and not frozen:
        raise ArgumentError(
            f"views={wish.views} are stored features of a frozen backbone; with freeze=False leave it out"
        )


def _created(arch: str, data: Data, wish: Wish, side: int | None, log_mel: LogMel | None) -> nn.Module:
    try:
        return create_model(
            arch,
            classes=data.classes,
            in_chans=1 if data.grey else 3,
            pretrained=wish.pretrained,
            weights=wish.weights,
            image_size=side,
            log_mel=log_mel,
        )
    except DownloadError as error:
        raise type(error)(
            Lines.of(
                str(error),
                f"Without a network: weights= takes a file of weights for {arch}; arch='small' is a small network "
                "that learns from scratch; pretrained=False begins with random weights, and needs much more data",
            )
        ) from error


def _own_size(side: int, *, stretch: bool, grey: bool) -> Preprocessing:
    return for_evaluation(side, fit="stretch" if stretch else "crop", color="L" if grey else "RGB")


def _augmented(prepared: Preprocessing) -> Preprocessing:
    """Random crops and mirror images, gentler than ImageNet's, because few photos are the usual case."""
    return dataclasses.replace(prepared, augment=Augment(scale=(0.3, 1.0)))
