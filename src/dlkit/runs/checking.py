"""What a checkpoint holds, looked at field by field before anything is put back.

A checksum shows that a file is what was written, not that it was written by this program: a negative position, weights
that are not numbers, or a list in a dict's place would end a training hours later, or in a crash of the interpreter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlkit.errors import DamagedCheckpointError, DlkitError
from dlkit.runs.state import Cursor, Run

__all__ = ["check_fits", "check_state", "check_weights", "first_spoilt", "restoring", "unfilled_parameters"]

_WORD = 2**32  # the generators of `random` and numpy hold 624 words of 32 bits and a place among them
_WORDS = 624


def check_state(state: Mapping[str, Any]) -> None:
    """Refuse a state whose fields are not of the types and ranges that they are written with.

    Args:
        state: A checkpoint's content.

    Raises:
        DamagedCheckpointError: names the field, what it holds and what it should.
    """
    for field, check in _CHECKS.items():
        if field in state:
            check(state[field], field)
        elif field not in _NEWER:
            raise DamagedCheckpointError(f"the checkpoint has no field {field!r}, so training cannot resume from it")


def check_fits(state: Mapping[str, Any], run: Run) -> None:
    """Refuse a state that has the settings of this run, and yet not its tensors.

    Args:
        state: What `check_state` has looked at.
        run: Fresh, with model and optimizers of the script.

    Raises:
        DamagedCheckpointError: names the tensor or the position.
    """
    check_weights(state["model"], run.model, "model", run.unfilled.get("model"))
    if state["eval_model"] is not None:
        check_weights(state["eval_model"], run.model, "eval_model", run.unfilled.get("model"))
    for name, part in run.parts.items():
        if isinstance(part, nn.Module) and name in state.get("parts", {}):
            check_weights(state["parts"][name], part, f"parts[{name!r}]", run.unfilled.get(name))
    for name, optimizer in run.optimizers.items():
        _need(name in state["optimizers"], f"optimizers[{name!r}]", None, "the state of that optimizer")
        _check_optimizer(state["optimizers"][name], optimizer, f"optimizers[{name!r}]")
    batch, count = state["cursor"]["batch"], run.num_batches
    _need(count is None or batch <= count, "cursor['batch']", batch, f"at most the {count} batches of an epoch")


def check_weights(saved: Any, module: nn.Module, field: str, unfilled: Collection[str] | None = None) -> None:
    """Refuse weights that are not those of a module: other names or shapes, NaN, infinities.

    Args:
        saved: A `state_dict`.
        module: Which they are for.
        field: The name of `saved` in the checkpoint.
        unfilled: Parameters that were no numbers before any training, so that checkpoints may hold such, too.

    Raises:
        DamagedCheckpointError: names the tensor.
    """
    _named(_tensor_or_extra)(saved, field)
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            _need(name in saved, f"{field}[{name!r}]", None, f"a tensor of {list(value.shape)}")
            found = list(saved[name].shape)
            _need(saved[name].shape == value.shape, f"{field}[{name!r}]", found, f"of shape {list(value.shape)}")
    parameters = [name for name, _ in module.named_parameters() if name in saved and name not in (unfilled or ())]
    spoilt = first_spoilt((name, saved[name]) for name in parameters)
    _need(spoilt is None, f"{field}[{spoilt!r}]", "NaN or infinite", "numbers")


@contextlib.contextmanager
def restoring(field: str) -> Iterator[None]:
    """Name the field whose content could not be put back, whatever the object that took it raised.

    Args:
        field: Its name in the checkpoint.
    """
    try:
        yield
    except DlkitError:
        raise
    except Exception as error:
        raise DamagedCheckpointError(
            f"the checkpoint's {field} cannot be restored: {type(error).__name__}: {error}"
        ) from error


@torch.no_grad()
def first_spoilt(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity, or None; reads the device once.

    Args:
        tensors: Names and tensors of floating point or complex numbers; others cannot be corrupted.

    >>> first_spoilt([("a", torch.zeros(2)), ("b", torch.tensor([1.0, torch.nan]))])
    'b'
    """
    named = [
        (name, value)
        for name, value in tensors
        if value.numel() and (value.is_floating_point() or value.is_complex()) and not value.is_meta
    ]
    if not named:
        return None
    # The largest entry is NaN or infinite exactly if any is; a sum could overflow without.
    largest = torch.stack([value.abs().amax().float().cpu() for _, value in named])
    if largest.isfinite().all():
        return None
    return named[int((~largest.isfinite()).nonzero()[0])][0]


def unfilled_parameters(module: nn.Module) -> frozenset[str]:
    """The parameters that hold NaN or infinities before any training, usually none; reads the device once.

    Args:
        module: With its first weights.
    """
    if first_spoilt(module.named_parameters()) is None:
        return frozenset()
    return frozenset(name for name, value in module.named_parameters() if first_spoilt([(name, value)]))


def _need(holds: bool, field: str, value: Any, expected: str) -> None:
    if not holds:
        plain = isinstance(value, int | float | list | type(None))
        shown = value if isinstance(value, str) else repr(value) if plain else f"a {type(value).__name__}"
        raise DamagedCheckpointError(f"the checkpoint's {field} is {shown[:80]}, not {expected}")


def _whole(value: Any, field: str, least: int = 0, most: float = math.inf) -> None:
    holds = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    _need(holds, field, value, f"a whole number from {least} on" + ("" if most == math.inf else f" to {most}"))


def _number(value: Any, field: str) -> None:
    _need(isinstance(value, int | float), field, value, "a number")


def _mapping(value: Any, field: str) -> None:
    _need(isinstance(value, Mapping), field, value, "a dict")


def _named(each: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    """A check of a dict whose keys are names and whose values pass `each`."""

    def check(value: Any, field: str) -> None:
        _mapping(value, field)
        for name, item in value.items():
            _need(isinstance(name, str), f"{field}: a key", name, "a name")
            each(item, f"{field}[{name!r}]")

    return check


def _optional(each: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    return lambda value, field: None if value is None else each(value, field)


def _cursor(value: Any, field: str) -> None:
    _mapping(value, field)
    fields = {each.name for each in dataclasses.fields(Cursor)}
    _need(set(value) == fields, field, str(sorted(map(str, value))), f"a dict of {', '.join(sorted(fields))}")
    _need(isinstance(value["finished"], str), f"{field}['finished']", value["finished"], "a text")
    for name in fields - {"finished"}:
        _whole(value[name], f"{field}[{name!r}]", least=-1 if name == "validated" else 0)


def _history(value: Any, field: str) -> None:
    _need(isinstance(value, list), field, value, "a list of rows")
    for place, row in enumerate(value):
        _named(_scalar)(row, f"{field}[{place}]")
        for name in ("epoch", "step"):
            _need(name in row, f"{field}[{place}]", str(sorted(row)), f"a row with {name!r}")
            _whole(row[name], f"{field}[{place}][{name!r}]")


def _scalar(value: Any, field: str) -> None:
    _need(isinstance(value, int | float | str | type(None)), field, value, "a number or a text")


def _sums(value: Any, field: str) -> None:
    if isinstance(value, Mapping):
        _named(_sums)(value, field)
    else:
        _number(value, field)


def _rng(value: Any, field: str) -> None:
    _mapping(value, field)
    for name in ("python", "numpy", "torch", "cuda"):
        _need(name in value, f"{field}[{name!r}]", None, "the state of that generator")
    python, numpy = value["python"], value["numpy"]
    _mapping(python, f"{field}['python']")
    _mapping(numpy, f"{field}['numpy']")
    _words(python.get("words"), f"{field}['python']['words']", _WORDS + 1)
    # numpy reads beyond its array, wherever that leads, from a position that is none of its own.
    _whole(int(python["words"][-1]), f"{field}['python']['words'][-1]", most=_WORDS)
    _whole(numpy.get("pos"), f"{field}['numpy']['pos']", most=_WORDS)
    _words(numpy.get("key"), f"{field}['numpy']['key']", _WORDS)
    _whole(numpy.get("has_gauss"), f"{field}['numpy']['has_gauss']", most=1)
    _number(numpy.get("gauss"), f"{field}['numpy']['gauss']")
    _optional(_number)(python.get("gauss"), f"{field}['python']['gauss']")
    _whole(python.get("version"), f"{field}['python']['version']")
    _need(isinstance(value["cuda"], list | tuple), f"{field}['cuda']", value["cuda"], "a list of states")
    size = len(torch.default_generator.get_state())
    _bytes(value["torch"], f"{field}['torch']", size)
    for place, state in enumerate(value["cuda"]):
        _bytes(state, f"{field}['cuda'][{place}]", None)


def _identity(value: Any, field: str) -> None:
    _mapping(value, field)
    for name in ("modules", "code"):
        _mapping(value.get(name, {}), f"{field}[{name!r}]")
    _optional(_mapping)(value.get("data"), f"{field}['data']")


def _words(value: Any, field: str, count: int) -> None:
    right = isinstance(value, Tensor) and value.dtype == torch.int64 and value.shape == (count,)
    _need(right and bool(((value >= 0) & (value < _WORD)).all()), field, value, f"{count} words of 32 bits")


def _bytes(value: Any, field: str, count: int | None) -> None:
    right = isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1
    _need(right and count in (None, len(value)), field, value, "a generator's state in bytes")


def _settings(value: Any, field: str) -> None:
    _mapping(value, field)
    for part, names in (("must", ("data", "model", "optimizer", "accumulate")), ("may", ("seed",))):
        _mapping(value.get(part), f"{field}[{part!r}]")
        for name in names:
            _need(name in value[part], f"{field}[{part!r}][{name!r}]", None, "what the run was set up with")
    for name in ("data", "model", "optimizer"):
        _mapping(value["must"][name], f"{field}['must'][{name!r}]")
    _whole(value["may"]["seed"], f"{field}['may']['seed']", least=-(2**64))


def _tensor_or_extra(value: Any, field: str) -> None:
    """One entry of a module's `state_dict`: a tensor, or whatever a module gives as extra state."""
    extra = field.endswith("_extra_state']")
    _need(isinstance(value, Tensor) or extra, field, value, "a tensor")


def _optimizer(value: Any, field: str) -> None:
    _mapping(value, field)
    _mapping(value.get("state"), f"{field}['state']")
    groups = value.get("param_groups")
    _need(isinstance(groups, list), f"{field}['param_groups']", groups, "a list of groups")
    for place, group in enumerate(groups):
        _mapping(group, f"{field}['param_groups'][{place}]")
        numbers = group.get("params")
        _need(isinstance(numbers, list), f"{field}['param_groups'][{place}]['params']", numbers, "a list")
    for number, entry in value["state"].items():
        _mapping(entry, f"{field}['state'][{number!r}]")
        for name, item in entry.items():
            plain = isinstance(item, Tensor | int | float | list | tuple | Mapping | type(None))
            _need(plain, f"{field}['state'][{number!r}][{name!r}]", item, "a tensor or a number")


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "settings": _settings,
    "cursor": _cursor,
    "history": _history,
    "losses": _named(_sums),
    "logged": _named(_number),
    "model": _named(_tensor_or_extra),
    "eval_model": _optional(_named(_tensor_or_extra)),
    "optimizers": _named(_optimizer),
    "scaler": _optional(_named(_number)),
    "callbacks": _named(_mapping),
    "source": _mapping,
    "rng": _rng,
    "identity": _identity,
    "epochs": _whole,
    "threads": functools.partial(_whole, least=1),
    "parts": _named(_mapping),
    "buffers": _named(_named(_tensor_or_extra)),
}
_NEWER = frozenset(
    {"logged", "identity", "epochs", "threads", "parts", "buffers"}
)  # which the first checkpoints did not have


def _check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer, field: str) -> None:
    groups = optimizer.param_groups
    counts = [[len(group["params"]) for group in each] for each in (saved["param_groups"], groups)]
    _need(counts[0] == counts[1], f"{field}['param_groups']", counts[0], f"groups of {counts[1]} parameters")
    for place, (group, now) in enumerate(zip(saved["param_groups"], groups, strict=True)):
        for name, value in now.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                held = group.get(name, value)
                right = isinstance(held, int | float | Tensor) and math.isfinite(float(held))
                _need(right, f"{field}['param_groups'][{place}][{name!r}]", held, "a finite number")
    for number, entry in saved["state"].items():
        for name, item in entry.items():
            nan = isinstance(item, Tensor) and item.is_floating_point() and bool(item.isnan().any())
            _need(not nan, f"{field}['state'][{number!r}][{name!r}]", "NaN", "numbers")
