"""`fine_tune`: the usual recipe, with its choices made by measuring."""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._arguments import whole_number
from dlkit._calling import as_input, rows_of, split, takes
from dlkit._language import Message
from dlkit._showing import safe
from dlkit.callbacks.base import Callback
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.early_stopping import EarlyStopping
from dlkit.runs.history import History
from dlkit.runs.parts import buffers_of, find_parts, load_buffers, remember
from dlkit.training.batches import pieces
from dlkit.training.meaning import agreed
from dlkit.training.rehearsal import first_batches
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.sources import source_of
from dlkit.training.trainer import Trainer
from dlkit.transfer.freezing import freeze, frozen_tensors, unfreeze
from dlkit.transfer.groups import param_groups

__all__ = ["FineTuned", "fine_tune"]

# Tried for the head, the usual ones first; on stored features each costs about a second.
RATES = (1e-3, 3e-3, 3e-4)
DECAYS = (1e-4, 1e-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What `fine_tune` found.

    Attributes:
        model: The model, with its best weights, in eval mode and wholly unfrozen.
        lr: The head's learning rate that was chosen.
        weight_decay: The weight decay that was chosen.
        head: The history of the head's training.
        whole: The history of the whole model's training; None where it was left out.
        score: The validation metric of the returned weights.
        tried: The metric for each (lr, weight_decay).
        kept: Which weights came back: "head" or "whole".
    """

    model: nn.Module
    lr: float
    weight_decay: float
    head: History
    whole: History | None
    score: float
    tried: Mapping[tuple[float, float], float]
    kept: str

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return (
            f"FineTuned({name}, score {self.score:.4g} of the {self.kept}, lr {self.lr:g}, decay {self.weight_decay:g})"
        )


def fine_tune(
    model: nn.Module,
    train: Any,
    val: Any,
    *,
    epochs: int = 10,
    head_epochs: int = 25,
    reuse_features: bool | ReuseFeatures = ReuseFeatures(views=4),  # noqa: B008  (frozen)
    metric: str = "accuracy",
    patience: int = 3,
    loss: nn.Module | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    backbone_lr: float = 1e-4,
    layer_decay: float = 0.9,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    folder: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> FineTuned:
    """Fine-tune a pretrained model: first the head on stored features, then everything with rates by depth.

    The head's learning rate and weight decay are the best of several, which costs next to nothing because all of them
    train on the same stored features (where features cannot be stored, the usual ones are taken). Then the model is
    unfrozen and trained with a cosine schedule, early stopping, and a rate that falls from layer to layer (Howard and
    Ruder 2018). The weights with the best validation metric come back; those with the head alone, if training the
    backbone did not help.

    Args:
        model: A model of `create_model`, or any module with a head.
        train: A loader, or anything `Trainer.fit` takes.
        val: The same.
        epochs: Of the whole model; 0 trains the head alone.
        head_epochs: Of the head.
        reuse_features: How the head's features are stored, see `Trainer`: four random views of each image, or one
            where nothing is random.
        metric: Computed over all of it, see `dlkit.metrics.names()`.
        patience: Validations without an improvement after which the whole model's training ends.
        loss: `CrossEntropyLoss` by default.
        lr: The head's rate, instead of choosing.
        weight_decay: Instead of choosing.
        backbone_lr: Rate of the layer next to the head when everything is trained; the head then has this times 10.
        layer_decay: Factor of the rate per layer further down. (0.9 was better than 0.8 by two points on letters, which
            ImageNet is far from, and the same on photos.)
        seed: See `Trainer`.
        device: See `Trainer`.
        precision: See `Trainer`.
        folder: Keep the checkpoints of the whole model's training there and resume from them; None for a temporary one.
        callbacks: Further callbacks for the training of the whole model.
        progress: Show bars and lines.

    Raises:
        ArgumentError: an invalid number of epochs, or a model without a head.
        DataError: training and validation data mean different things.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = DataLoader(TensorDataset(torch.randn(32, 4), torch.arange(32) % 2), 8)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> fine_tune(model, data, data, epochs=1, head_epochs=2, progress=False).kept in ("head", "whole")
    True
    """
    epochs, head_epochs = whole_number("epochs", epochs, least=0), whole_number("head_epochs", head_epochs, least=1)
    patience, seed = whole_number("patience", patience, least=1), whole_number("seed", seed)
    agreed(model, train, val)
    loss = loss or nn.CrossEntropyLoss()
    make = functools.partial(Trainer, model, loss, metrics=[metric], device=device, precision=precision, seed=seed)
    example = _example(model, train, seed)
    freeze(model, example=example)
    search = _Search(make, model, loss, metric, ReuseFeatures.of(reuse_features), progress=progress)
    rates = RATES if lr is None else (lr,)
    decays = DECAYS if weight_decay is None else (weight_decay,)
    best = search.best_of([(rate, decay) for rate in rates for decay in decays], train, val, head_epochs)
    model.load_state_dict(best.weights, strict=False)
    unfreeze(model)
    score, kept, whole = best.value, "head", None
    if epochs:
        put_back = remember(model)
        groups = param_groups(
            model,
            backbone_lr * 10,
            backbone_lr=backbone_lr,
            layer_decay=layer_decay,
            weight_decay=best.weight_decay,
            example=example,
        )
        optimizer = torch.optim.AdamW(groups)
        with tempfile.TemporaryDirectory() as temporary:
            ends = [EarlyStopping(f"val_{metric}", patience=patience), Checkpoint(folder or temporary, f"val_{metric}")]
            trainer = make(
                optimizer,
                scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
                callbacks=[*callbacks, *ends],
                reuse_features=reuse_features,
                progress=progress,
            )
            whole = trainer.fit(train, val, epochs=epochs)
        values = [row[f"val_{metric}"] for row in whole.rows if f"val_{metric}" in row]
        now = (max(values) if best.higher else min(values)) if values else score
        if (now > score) if best.higher else (now < score):
            score, kept = now, "whole"
        else:
            put_back()
    if progress:
        _say(
            Message(
                "fine-tuned: {metric} {score:.4f}, weights of the training of the {part}",
                metric=metric,
                score=score,
                part=Message("whole") if kept == "whole" else Message("head"),
            )
        )
    return FineTuned(
        model=model.eval(),
        lr=best.lr,
        weight_decay=best.weight_decay,
        head=best.history,
        whole=whole,
        score=score,
        tried=search.tried,
        kept=kept,
    )


class _Search:
    """Trains the head with several settings on the same stored features.

    Args:
        make: Gives a Trainer for an optimizer.
        model: A frozen model; every training begins with the weights that it has now.
        loss: The loss.
        metric: What is compared.
        reuse: How features are stored; None for not at all.
        progress: Say what is done.
    """

    def __init__(
        self,
        make: Callable[..., Trainer],
        model: nn.Module,
        loss: nn.Module,
        metric: str,
        reuse: ReuseFeatures | None,
        *,
        progress: bool,
    ) -> None:
        self.make, self.model, self.metric, self.progress = make, model, metric, progress
        self.stores: dict[str, Any] = {}
        self.reuse = False if reuse is None else dataclasses.replace(reuse, shared=self.stores)
        self.start, self.buffers = _moving(model), {n: buffer.clone() for n, buffer in buffers_of(model).items()}
        self.parts = [remember(part) for part in find_parts({"loss": loss}, model).values()]
        self.tried: dict[tuple[float, float], float] = {}

    def best_of(self, settings: list[tuple[float, float]], train: Any, val: Any, epochs: int) -> _Best:
        """The best weights of all (lr, weight_decay); without stored features only the first one is tried."""
        best: _Best | None = None
        try:
            for rate, decay in settings:
                found = self._trained(rate, decay, train, val, epochs)
                self.tried[rate, decay] = found.value
                best = found if best is None or found.is_better_than(best) else best
                if len(self.stores) < 2 and len(settings) > 1:  # else each would cost a whole training
                    self._say(
                        Message(
                            "features are not stored, so only lr {rate:g}, weight decay {decay:g} was tried",
                            rate=rate,
                            decay=decay,
                        )
                    )
                    break
        finally:
            self.stores.clear()
            self._begin_anew()
        assert best is not None
        self._say(
            Message(
                "head: {metric} {value:.4f} with lr {lr:g}, weight decay {decay:g} ({tried} tried)",
                metric=self.metric,
                value=best.value,
                lr=best.lr,
                decay=best.weight_decay,
                tried=len(self.tried),
            )
        )
        return best

    def _begin_anew(self) -> None:
        self.model.load_state_dict(self.start, strict=False)
        load_buffers(self.model, self.buffers)
        for put_back in self.parts:
            put_back()

    def _trained(self, rate: float, decay: float, train: Any, val: Any, epochs: int) -> _Best:
        self._begin_anew()
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optim = torch.optim.AdamW(learning, rate, weight_decay=decay)
        best = _Best(f"val_{self.metric}", rate, decay)
        trainer = self.make(optim, callbacks=[best], reuse_features=self.reuse, progress=False)
        # What is stored is said once, without a bar and a line for each of the short epochs.
        trainer.run.verbose = self.progress and not self.tried
        best.history = trainer.fit(train, val, epochs=epochs)
        return best

    def _say(self, message: str) -> None:
        if self.progress:
            _say(message)


class _Best(Callback):
    """Keeps the best weights of a short training in memory: by the metric, and by the loss where that is equal."""

    order = 100

    def __init__(self, monitor: str, lr: float, weight_decay: float) -> None:
        self.monitor, self.lr, self.weight_decay = monitor, lr, weight_decay
        self.value, self.loss, self.weights = float("nan"), float("inf"), dict[str, Tensor]()
        self.higher, self.history = True, History()

    def on_fit_start(self, run: Any) -> None:
        self.higher = run.higher_is_better(self.monitor)

    def on_log(self, run: Any, row: Mapping[str, Any]) -> None:
        if self.monitor not in row:
            return
        value, loss = float(row[self.monitor]), float(row.get("val_loss", 0.0))
        if not self.weights or self._beats(value, loss, self.value, self.loss):
            self.value, self.loss, self.weights = value, loss, _moving(run.model)

    def is_better_than(self, other: _Best) -> bool:
        """Whether these weights are."""
        return self._beats(self.value, self.loss, other.value, other.loss)

    def _beats(self, value: float, loss: float, than: float, than_loss: float) -> bool:
        if value != than:
            return value > than if self.higher else value < than
        return loss < than_loss


def _example(model: nn.Module, train: Any, seed: int) -> Any:
    """Inputs to follow the model with, where it takes several: those cannot be guessed."""
    if takes(model, [None]):
        return None
    (batch,) = first_batches(source_of(train, seed), 1)
    inputs = as_input(model, *split(batch))
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    rows = rows_of(inputs)
    return inputs if rows is None or rows <= 2 else pieces(inputs, rows // 2)[0]


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what is not frozen: the head, not the backbone."""
    frozen = frozen_tensors(model)
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in frozen}


def _say(message: str) -> None:
    sys.stderr.write(f"{safe(message)}\n")
