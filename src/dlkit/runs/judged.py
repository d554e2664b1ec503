"""One rule for all ends of a fit: the model that was judged is the model that is left.

While a run trains, validations may use another module than the one that is trained (a moving average). When the fit
ends, that one's weights go into the user's model, so that the model, `evaluate`, `predict` and every file agree. The
weights that were trained are set aside for a fit that continues.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from dlkit._language import Message
from dlkit.runs.state import Run

__all__ = ["leave_judged", "take_trained_back"]


@dataclasses.dataclass(frozen=True)
class TrainedWeights:
    """What training continues from, while the model holds what was evaluated.

    Attributes:
        tensors: The trained parameters and buffers, by name.
        judged: The module whose weights were left in the model.
    """

    tensors: dict[str, Tensor]
    judged: nn.Module


def leave_judged(run: Run) -> None:
    """Put the weights that validations use into the model; the trained ones are kept in `run.trained`.

    A module of another architecture (a callback may judge by any) cannot be put there, and stays `run.eval_model`.

    Args:
        run: The run, at the end of a fit.
    """
    judged, own = _tensors(run.eval_model), _tensors(run.model)
    if run.eval_model is run.model or _shapes(judged) != _shapes(own):
        return
    run.trained = TrainedWeights({name: value.detach().clone() for name, value in own.items()}, run.eval_model)
    _put(run.model, judged)
    run.eval_model = run.model


def take_trained_back(run: Run) -> None:
    """Restore the trained weights for a fit that continues, unless the user has given the model others meanwhile.

    Args:
        run: The run, at the start of a fit that resumes no file.
    """
    trained, run.trained = run.trained, None
    if trained is None:
        return
    left, own = _tensors(trained.judged), _tensors(run.model)
    if all(torch.equal(left[name].to(value.device), value) for name, value in own.items()):
        _put(run.model, trained.tensors)
    else:
        run.say(Message("the model's weights were changed after the last fit: training continues from them"))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, those included that are in no state_dict."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


@torch.no_grad()
def _put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, value in _tensors(model).items():
        value.copy_(tensors[name])
