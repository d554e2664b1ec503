"""From a model file back to the model, after everything that the file claims has been checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import _torch_layers, registry
from dlkit._calling import call, cast, output_of
from dlkit._opening import name_of, open_regular
from dlkit.artifact.budget import Budget
from dlkit.artifact.header import Header, read_header
from dlkit.artifact.inputs import Meaning, make_example
from dlkit.artifact.weights import check_fit, unpack
from dlkit.errors import ArgumentError, DlkitError, ModelFileError
from dlkit.transfer.models import rebuild

__all__ = ["assemble", "differs", "open_model"]

# Operators that may run: per tensor of the file while a model is made (initialisation takes up to ten), and in all
# while its example is computed (a recurrent layer takes some for every step).
_BUILD_CALLS, _RUN_CALLS = 200, 50_000
# Other processors and versions round differently; a wrong architecture or weight is off by far more.
_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def open_model(
    path: str | os.PathLike[str], *, verify: bool = True, trust_hub: bool = False, tokenizer: Any = None
) -> tuple[nn.Module, Meaning, Header]:
    """The model of a file, in evaluation mode on the CPU, with what its inputs and outputs mean.

    Args:
        path: What `save` wrote.
        verify: Compute the stored example again and compare.
        trust_hub: Allow an architecture of `torch.hub`, which runs the code of that repository.
        tokenizer: The tokenizing function, where the texts were cut by one of your own.

    Raises:
        DataNotFoundError: there is no such file.
        ModelFileError: it is damaged, was changed, or cannot be built here.
    """
    header = read_header(path)
    header.check_intact()
    document, name = header.document, str(header.path)
    meaning = Meaning.from_document(document.get("meaning"), tokenizer)
    aliases = _aliases(document, name)
    _check_outputs(meaning, document, name)
    drawn = _check_size(document, header.shapes, aliases, name, trust_hub=trust_hub)
    model = assemble(document, _tensors(header), name, trust_hub=trust_hub, drawn=drawn)
    if verify and (difference := differs(model, document)):
        raise ModelFileError(
            f"{name}: the model does not give the output that it gave when it was saved ({difference}); it was saved "
            f"with {_shown(document.get('versions'))}; load(..., verify=False) opens it all the same"
        )
    return model, meaning, header


def assemble(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    name: str,
    *,
    trust_hub: bool = False,
    drawn: nn.Module | None = None,
) -> nn.Module:
    """Build the architecture of a document and give it its weights.

    Args:
        document: Of a model file.
        tensors: Its weights.
        name: The file, for messages.
        trust_hub: See `open_model`.
        drawn: The same architecture without memory, where it was built already.
    """
    if drawn is not None and _all_in_state(drawn):
        model = drawn.to_empty(device="cpu")
    else:
        model = _built(document, name, _size_of(tensors.values()), len(tensors), trust_hub=trust_hub)
    aliases = _aliases(document, name)
    check_fit(model, {key: tuple(value.shape) for key, value in tensors.items()}, aliases, name)
    unpack(model, tensors, aliases)
    return model.eval()


def differs(model: nn.Module, document: Mapping[str, Any]) -> str:
    """How the model's output for the stored example differs from the stored one; empty if it does not.

    Args:
        model: In evaluation mode.
        document: Of a model file.
    """
    example = document.get("example")
    if not isinstance(example, Mapping) or not isinstance(example.get("output"), list):
        return "the file has no example"
    first = next((value for value in model.parameters() if value.is_floating_point()), torch.zeros(()))
    given = make_example(example.get("input"))
    budget = Budget("computing example.input", size=_size_of(model.state_dict().values()), calls=_RUN_CALLS)
    try:
        with torch.no_grad(), budget:
            output = output_of(call(model, cast(given, first))).float().cpu()
    except ModelFileError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a changed example makes a model raise, the file is to blame)
        return f"it does not take the stored example: {type(error).__name__}: {error}"
    if list(output.shape) != example.get("shape"):
        return f"its shape is {list(output.shape)} instead of {example.get('shape')}"
    found = output.flatten()[: len(example["output"])].nan_to_num(0.0, 0.0, 0.0)
    if not all(value is None or type(value) in (int, float) for value in example["output"]):
        return "the stored output holds no numbers"
    stored = torch.tensor([0.0 if value is None else float(value) for value in example["output"]])
    if len(stored) != len(found):
        return f"{len(stored)} numbers are stored and {len(found)} come out"
    worst = float((found - stored).abs().max()) if len(stored) else 0.0
    allowed = _TOLERANCE.get(first.dtype, 1e-3) * max(1.0, float(stored.abs().max()) if len(stored) else 0.0)
    return "" if worst <= allowed else f"off by up to {worst:.3g}, where {allowed:.3g} is allowed"


def _built(document: Mapping[str, Any], name: str, size: int, tensors: int, *, trust_hub: bool) -> nn.Module:
    """`_build` within a budget, where whatever goes wrong is the file's fault: its text says what is made."""
    architecture = document.get("architecture")
    if not isinstance(architecture, Mapping):
        raise ModelFileError(f"{name} does not say how its model is built")
    doing = f"{name}: building its architecture{_largest(architecture)}"
    try:
        with Budget(doing, size=size, calls=_BUILD_CALLS * (10 + tensors)):
            return _build(architecture, trust_hub=trust_hub)
    except ModelFileError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, DlkitError) else f"{type(error).__name__}: "
        raise ModelFileError(f"{name}: its model cannot be built here: {kind}{error}") from error


def _build(architecture: Mapping[str, Any], *, trust_hub: bool) -> nn.Module:
    import dlkit.models  # noqa: F401  (they register themselves)

    if architecture.get("library") == "registered":
        with torch.random.fork_rng(devices=[]):
            return registry.build(architecture)
    if architecture.get("library") == "torch":
        with torch.random.fork_rng(devices=[]):
            return _torch_layers.build(architecture)
    return rebuild(architecture, trust_hub=trust_hub)


def _largest(architecture: Mapping[str, Any]) -> str:
    """The field that most likely makes a model too large, in words."""
    arguments = architecture.get("arguments")
    fields = architecture if not isinstance(arguments, Mapping) else {f"arguments.{k}": v for k, v in arguments.items()}
    numbers = {key: value for key, value in fields.items() if type(value) is int}
    lists = {f"{key} in numbers": len(value) for key, value in fields.items() if isinstance(value, list)}
    if not numbers | lists:
        return ""
    key, value = max((numbers | lists).items(), key=lambda item: item[1])
    return f", where {key:.100}={value},"


def _check_size(
    document: Mapping[str, Any], shapes: Mapping[str, Any], aliases: Mapping[str, str], name: str, *, trust_hub: bool
) -> nn.Module | None:
    """Build without memory first: a file of a kilobyte must not make us allocate what its text claims."""
    try:
        with torch.device("meta"):
            size = 4 * sum(map(math.prod, shapes.values()))
            model = _built(document, name, size, len(shapes) + len(aliases), trust_hub=trust_hub)
    except ModelFileError as error:
        if error.__cause__ is None or isinstance(error.__cause__, DlkitError):
            raise
        return None  # some models compute while they are made, which nothing can do without memory
    check_fit(model, shapes, aliases, name)
    return model


def _check_outputs(meaning: Meaning, document: Mapping[str, Any], name: str) -> None:
    example = document.get("example")
    shape = example.get("shape") if isinstance(example, Mapping) else None
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ModelFileError(f"{name}: the file has no example, or example.shape is not a shape: {shape!r:.80}")
    try:
        meaning.check_outputs(shape)
    except ArgumentError as error:
        raise ModelFileError(f"{name}: meaning.classes and example.shape do not fit: {error}") from error


def _size_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _all_in_state(model: nn.Module) -> bool:
    """Whether a state_dict gives every tensor of a model its value, so that it need not be built again."""
    state = model.state_dict()
    if any(name not in state for name, _ in model.named_buffers()):
        return False
    return not any(isinstance(value, Tensor) for part in model.modules() for value in vars(part).values())


def _tensors(header: Header) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_regular(header.path, ModelFileError, noun="model file") as file:
            return load_file(name_of(file, header.path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{header.path} cannot be read: {error}") from error


def _aliases(document: Mapping[str, Any], name: str) -> dict[str, str]:
    aliases = document.get("aliases", {})
    if not isinstance(aliases, Mapping) or not all(isinstance(each, str) for each in aliases.values()):
        raise ModelFileError(f"{name}: the names of shared tensors cannot be read: {aliases!r:.200}")
    return dict(aliases)


def _shown(versions: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, Mapping) else "?"
