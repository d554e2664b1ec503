"""Which layers `find_heads` finds in every classification model of torchvision and in every family of timm.

Without weights, on the "meta" device. Each model's heads are replaced by ones for 7 classes and found again.

    python bench/heads.py > bench/heads.txt
    python bench/heads.py "torchvision/(e|r)"        # some of them: a regular expression on "library/[module/]name"
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator

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
        before = dict(model.named_parameters())
        heads = find_heads(model)
        if any(each is not before[key] for key, each in model.named_parameters()):
            return f"FAIL {name}: finding the heads replaced parameters"
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
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def timm_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=1000)


def plan_on_cpu(kind: type, method: str) -> None:
    """RegNet's constructor computes its widths with tensors, which "meta" cannot."""
    original = getattr(kind, method).__func__

    def planned(cls: type, *args: object, **kwargs: object) -> object:
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    setattr(kind, method, classmethod(planned))


def models() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    for family in timm.list_modules():
        if names := timm.list_models(module=family):
            name = min(names, key=lambda each: (not is_small(each), len(each), each))
            yield f"timm/{family}/{name}", lambda name=name: timm_model(name)
    for name in torchvision.models.list_models(module=torchvision.models):
        yield f"torchvision/{name}", lambda name=name: torchvision_model(name)


def is_small(name: str) -> bool:
    return name.endswith("_s") or any(part in name for part in SMALL)


def main() -> None:
    warnings.simplefilter("ignore")
    plan_on_cpu(torchvision.models.regnet.BlockParams, "from_init_params")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}")
    wanted = re.compile(sys.argv[1] if len(sys.argv) > 1 else "")
    for name, build in models():
        if wanted.match(name):
            print(line(name, build), flush=True)


if __name__ == "__main__":
    main()
