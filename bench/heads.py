"""Which layers `find_heads` finds in every classification model of torchvision and in every family of timm.

Without weights, on the "meta" device. Each model's heads are replaced by ones for 7 classes and found again.

    python bench/heads.py > bench/heads.txt
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import timm
import torch
import torchvision
from torch import nn

from dlkit.transfer import find_heads, replace_head

SMALL = ("tiny", "nano", "small", "18", "b0", "_s_", "xxs", "micro", "atto", "test_")


def line(name: str, build: Callable[[], nn.Module]) -> str:
    began = time.perf_counter()
    try:
        model = build()
        heads = find_heads(model)
        replace_head(model, 7)
        model.__dict__.pop("_dlkit_heads")
        again = find_heads(model)
    except Exception as error:
        return f"FAIL {name}: {type(error).__name__}: {str(error)[:200]}"
    if again.names != heads.names or again.num_classes != 7:
        return f"FAIL {name}: {heads} became {again}"
    auxiliary = f", auxiliary {', '.join(heads.auxiliary)}" if heads.auxiliary else ""
    dropout = f", dropout {', '.join(heads.dropout)}" if heads.dropout else ""
    return f"ok   {name}: {', '.join(heads.main)}{auxiliary}{dropout} ({time.perf_counter() - began:.1f} s)"


def torchvision_model(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("regnet"):  # its constructor computes with tensors, which "meta" cannot
        return torchvision.models.get_model(name, weights=None)
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def timm_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=1000)


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}")
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if names:
            name = min(names, key=lambda each: (not any(part in each for part in SMALL), len(each), each))
            print(line(f"timm/{family}/{name}", lambda name=name: timm_model(name)), flush=True)
    for name in torchvision.models.list_models(module=torchvision.models):
        print(line(f"torchvision/{name}", lambda name=name: torchvision_model(name)), flush=True)


if __name__ == "__main__":
    main()
