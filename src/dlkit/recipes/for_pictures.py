"""Models for images and sounds: small ones from scratch, and pretrained backbones, which see spectrograms of sounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.errors import ArgumentError, DownloadError
from dlkit.models import (
    AudioClassifier,
    SmallConvNet,
)
from dlkit.recipes.choices import Choice, Wish, judged_by, refuse
from dlkit.recipes.reading import Data
from dlkit.transfer.freezing import freeze
from dlkit.transfer.groups import param_groups
from dlkit.transfer.inputs import SMALLEST
from dlkit.transfer.models import create_model, has_weights
from dlkit.transforms import Augment, Preprocessing, for_evaluation
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing, LogMel

__all__ = ["BACKBONE", "ENOUGH_HERTZ", "for_images", "for_sounds", "listening_to"]

#: Torchvision's, because its weights come with a hash that is checked; small, known to everybody, and good frozen.
BACKBONE = "torchvision/resnet18"


ENOUGH_HERTZ = 16_000  # speech, and most of what tells sounds apart, is below the half of it


SMALL_SIDE = 64  # pixels up to which a small network from scratch sees all there is
FEW = 5_000  # training images up to which a pretrained backbone knows more than there is to learn from small ones


def for_images(data: Data, wish: Wish) -> Choice:
    """Small images get a network from scratch, larger ones a pretrained backbone; so do few small photographs.

    Measured with ants and bees, 244 photographs for training, of 32 pixels: 0.85 with a frozen MobileNetV2, which
    enlarges them to 96, and 0.73 from scratch; of 64 pixels 0.88 and 0.71. Grey glyphs are not photographs.

    Args:
        data: From `read_data`: images or letters.
        wish: What the caller has said.
    """
    small = data.side <= SMALL_SIDE and wish.weights is None
    if small and data.kind == "images" and not data.grey and len(data.train) <= FEW and wish.pretrained:
        small = wish.image_size is not None or not has_weights(BACKBONE)
    arch = wish.arch or ("small" if small else BACKBONE)
    return _judged(data, _small(data, wish) if arch == "small" else _backbone(data, wish, arch))


def _judged(data: Data, choice: Choice) -> Choice:
    """With loss and metrics of what there is to learn."""
    choice.loss, choice.metrics = judged_by(data.task)
    return choice


def _small(data: Data, wish: Wish) -> Choice:
    refuse(wish, "weights", "freeze", "views", why="the small network learns from scratch; choose a backbone: arch=")
    tiny = data.side <= SMALL_SIDE
    side = wish.image_size or (data.side if tiny else SMALL_SIDE)
    side = max(side, 8)
    prepared = data.train.preprocessing if data.kind == "letters" else _own_size(side, stretch=tiny, grey=data.grey)
    if data.kind == "letters" and wish.image_size not in (None, 28):
        raise ArgumentError(f"image_size={wish.image_size}: these letters are 28 x 28 pixels as they are")
    reason = Message("images of {side} pixels", side=data.side) if wish.arch is None else Message("as asked for")
    model = Message("model: SmallConvNet from scratch ({reason}), {side} x {side} pixels", reason=reason, side=side)
    return Choice(
        arch="small",
        model=SmallConvNet(data.outputs, in_chans=1 if data.grey else 3),
        lr=3e-3 if tiny else 1e-3,
        epochs=8 if len(data.train) > 5_000 else 20,
        batch_size=128 if len(data.train) > 5_000 else 32,
        patience=5,
        why=[model, *_better(data, wish)],
        preprocessing=prepared,
        # A mirrored or cut letter may be another one, so small images stay as they are.
        training=prepared if tiny else _augmented(prepared),
    )


def _better(data: Data, wish: Wish) -> list[str]:
    if wish.arch is not None or data.kind != "images" or data.grey or len(data.train) > FEW:
        return []
    said = Message(
        "few small photographs: a pretrained backbone is usually better; dlkit download {name} fetches one",
        name=BACKBONE,
    )
    return [said]


def _backbone(data: Data, wish: Wish, arch: str, log_mel: LogMel | None = None) -> Choice:
    loaded = wish.weights is not None or wish.pretrained
    frozen = loaded if wish.freeze is None else wish.freeze
    _check_backbone(wish, loaded, frozen)
    side = 28 if data.kind == "letters" else wish.image_size
    model = _created(arch, data, wish, side, log_mel)
    prepared: Any = data.train.preprocessing if data.kind == "letters" else model.preprocessing
    if frozen:
        freeze(model)
    origin = Message("pretrained") if wish.pretrained else Message("random weights")
    if wish.weights:
        origin = Message("weights of {file}", file=wish.weights)
    learns = Message("only the head is trained") if frozen else Message("all layers are trained")
    varied = data.kind == "images" and (wish.views is not None or not frozen)
    told = Message("model: {arch}, {origin}; {learns}", arch=arch, origin=origin, learns=learns)
    if log_mel is None:
        height, width = prepared.size
        told = Message("{model}, {height} x {width} pixels", model=told, height=height, width=width)
    return Choice(
        arch=arch,
        model=model,
        lr=1e-3,
        epochs=20 if frozen else 10,
        batch_size=32,
        patience=5,
        frozen=frozen,
        why=[told],
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
            classes=data.classes or data.outputs,
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


def for_sounds(data: Data, wish: Wish) -> Choice:
    """From scratch, or a backbone for images that looks at spectrograms; both at a rate that the files have.

    Args:
        data: From `read_data`: sounds.
        wish: What the caller has said.
    """
    refuse(wish, "image_size", why="this is for images, and the data is sounds")
    rate, seconds = wish.sample_rate or min(data.rate, ENOUGH_HERTZ), wish.seconds or data.seconds
    prepared = AudioPreprocessing(sample_rate=rate, seconds=seconds)
    heard = Message("{seconds:g} seconds at {rate:,} Hz", seconds=seconds, rate=rate)
    varied = dataclasses.replace(prepared, augment=AudioAugment(shift=min(0.1, seconds / 8), noise=(10, 40)))
    if wish.arch not in (None, "small"):
        choice = _backbone(data, wish, str(wish.arch), listening_to(prepared))
        choice.preprocessing = prepared
        choice.training = varied if wish.views is not None or not choice.frozen else prepared
        choice.why = [Message("{model}, {heard} as a spectrogram", model=choice.why[0], heard=heard)]
        return _judged(data, choice)
    refuse(wish, "weights", "freeze", "views", why="the small network learns from scratch; choose a backbone: arch=")
    steps = -(-len(data.train) // 32)
    choice = Choice(
        arch="small",
        model=AudioClassifier(data.outputs, rate),
        lr=3e-3,
        epochs=min(60, max(15, -(-2_000 // steps))),
        batch_size=32,
        patience=15,
        why=[Message("model: AudioClassifier from scratch, {heard}", heard=heard)],
        preprocessing=prepared,
        training=varied,
    )
    return _judged(data, choice)


def listening_to(prepared: AudioPreprocessing) -> LogMel:
    """The spectrogram that a backbone for images looks at: as many bands as it needs, each with its own frequency.

    Args:
        prepared: The waveforms.
    """
    rate = prepared.sample_rate
    return LogMel(sample_rate=rate, num_mels=SMALLEST, window=rate // 20, hop=rate // 100)
