"""A copy of a model for prediction alone, which computes the same in fewer steps."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dlkit.artifact.opening import differs

__all__ = ["fused"]


def fused(model: nn.Module, document: Mapping[str, Any]) -> nn.Module:
    """A copy whose batch normalisations are part of the convolutions before them, with the channels last in memory.

    Its numbers differ in the last bits, as sums are taken in another order. Which convolution stands before which
    normalisation is seen while the stored example is computed; the copy must give the stored output as well.

    Args:
        model: In evaluation mode, on the CPU.
        document: Of its model file.

    Returns:
        The copy; the model itself where the copy does not give the stored output.
    """
    found = copy.deepcopy(model)
    for before, behind in _pairs(found, document):
        convolution, norm = found.get_submodule(before), found.get_submodule(behind)
        _put(found, before, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var, arg-type]
        _put(found, behind, nn.Sequential(*norm.children()))  # timm has the activation in the normalisation
    found = found.to(memory_format=torch.channels_last)
    return model if differs(found, document) else found


def _pairs(model: nn.Module, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names of convolutions and of the normalisations of their bare outputs; of modules that are used once."""
    made = dict[int, tuple[str, Tensor, int]]()
    calls, pairs = Counter[str](), list[tuple[str, str]]()

    def saw(name: str, module: nn.Module, given: Any, output: Any) -> None:
        calls[name] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = name, output, output._version  # kept, so that no other tensor gets its id
        elif given and (before := made.get(id(given[0]))) is not None and before[2] == given[0]._version:
            pairs.append((before[0], name))

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            norm = isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
            if norm or (isinstance(module, nn.Conv2d) and not hasattr(module, "parametrizations")):
                hook = module.register_forward_hook(lambda *seen, name=name: saw(name, *seen))
                stack.callback(hook.remove)
        differs(model, document)
    return [pair for pair in pairs if max(calls[name] for name in pair) == 1]


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
