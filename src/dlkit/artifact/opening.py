"""From a model file back to the model, after everything that the file claims has been checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import registry
from dlkit.artifact.header import Header, read_header
from dlkit.artifact.inputs import Meaning, make_example
from dlkit.artifact.running import call, cast, output_of
from dlkit.artifact.weights import check_fit, unpack
from dlkit.errors import ArgumentError, DlkitError, ModelFileError
from dlkit.transfer.models import rebuild

__all__ = ["assemble", "differs", "open_model"]

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
        model = _built(document, name, trust_hub=trust_hub)
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
    try:
        with torch.inference_mode():
            output = output_of(call(model, cast(given, first))).float().cpu()
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


def _built(document: Mapping[str, Any], name: str, *, trust_hub: bool) -> nn.Module:
    """`_build`, where whatever goes wrong is the file's fault: its text says what is made, and with which numbers."""
    try:
        return _build(document, name, trust_hub=trust_hub)
    except DlkitError:
        raise
    except Exception as error:
        raise ModelFileError(f"{name}: its model cannot be built: {type(error).__name__}: {error}") from error


def _build(document: Mapping[str, Any], name: str, *, trust_hub: bool) -> nn.Module:
    architecture = document.get("architecture")
    if not isinstance(architecture, Mapping):
        raise ModelFileError(f"{name} does not say how its model is built")
    if architecture.get("library") == "registered":
        with torch.random.fork_rng(devices=[]):
            return registry.build(architecture)
    try:
        return rebuild(architecture, trust_hub=trust_hub)
    except ArgumentError as error:
        raise ModelFileError(f"{name}: its model cannot be built here: {error}") from error


def _check_size(
    document: Mapping[str, Any], shapes: Mapping[str, Any], aliases: Mapping[str, str], name: str, *, trust_hub: bool
) -> nn.Module | None:
    """Build without memory first: a file of a kilobyte must not make us allocate what its text claims."""
    try:
        with torch.device("meta"):
            model = _build(document, name, trust_hub=trust_hub)
    except DlkitError:
        raise
    except Exception:  # noqa: BLE001  (some models compute while they are made, which nothing can do without memory)
        _check_counts(document, shapes, name)
        return None
    check_fit(model, shapes, aliases, name)
    return model


def _all_in_state(model: nn.Module) -> bool:
    """Whether a state_dict gives every tensor of a model its value, so that it need not be built again."""
    state = model.state_dict()
    if any(name not in state for name, _ in model.named_buffers()):
        return False
    return not any(isinstance(value, Tensor) for part in model.modules() for value in vars(part).values())


def _check_counts(document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """The numbers that make a model large must be seen among the sizes of its tensors."""
    sizes = {size for shape in shapes.values() for size in shape}
    architecture = document["architecture"]
    claimed = architecture.get("arguments") or {key: architecture.get(key) for key in ("num_classes", "in_chans")}
    for key, value in claimed.items():
        if type(value) is int and value > max(4096, *sizes):
            raise ModelFileError(f"{name} claims {key}={value}, and none of its tensors is that large")


def _tensors(header: Header) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(header.path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{header.path} cannot be read: {error}") from error


def _aliases(document: Mapping[str, Any], name: str) -> dict[str, str]:
    aliases = document.get("aliases", {})
    if not isinstance(aliases, Mapping) or not all(isinstance(each, str) for each in aliases.values()):
        raise ModelFileError(f"{name}: the names of shared tensors cannot be read: {aliases!r:.200}")
    return dict(aliases)


def _shown(versions: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, Mapping) else "?"
