"""Where to compute: the device that is meant, if it is there."""

from __future__ import annotations

import torch

from dlkit.distributed import World
from dlkit.errors import ArgumentError

__all__ = ["pick_device"]


def pick_device(device: str | torch.device, *, gpus: int | None = None) -> torch.device:
    """The device itself, or for "auto" the best one there is: CUDA, then Apple's MPS, then the CPU.

    Of several processes of a run each gets its own GPU for "auto" and "cuda".

    Args:
        device: "auto", a name such as "cuda:1", or a `torch.device`.
        gpus: How many there are; None asks torch.

    Raises:
        ArgumentError: not a device, or one that this machine does not have; lists those there are. Or there are more
            processes on this machine than GPUs.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        if gpus or torch.cuda.is_available():
            return _own_gpu(gpus)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if isinstance(device, bool):
            raise TypeError("a bool")
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        hint = (
            " (torch calls a GPU of NVIDIA or AMD 'cuda', one of Apple 'mps')" if "gpu" in str(device).lower() else ""
        )
        raise ArgumentError(f"{device!r} is not a device{hint}; {_expected()}") from error
    if found.type == "cuda" and found.index is None and (gpus or torch.cuda.is_available()):
        return _own_gpu(gpus)
    if not _is_there(found):
        raise ArgumentError(f"device {str(found)!r} is not on this machine, or torch cannot use it; {_expected()}")
    return found


def _own_gpu(gpus: int | None) -> torch.device:
    """That of this process: torch's current one where it is alone."""
    world, count = World.of_environment(), torch.cuda.device_count() if gpus is None else gpus
    if world.size == 1:
        return torch.device("cuda")
    if world.local_rank >= count:
        raise ArgumentError(
            f"process {world.local_rank} of this machine (LOCAL_RANK, from 0) has no GPU of its own, as there "
            f"{'is' if count == 1 else 'are'} {count}; start as many processes here (--nproc-per-node {count}), or use "
            "device='cpu'"
        )
    return torch.device("cuda", world.local_rank)


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "meta":  # takes every tensor, and holds no values
        return False
    try:
        torch.empty(1, device=device)
    except (RuntimeError, NotImplementedError, AssertionError, ImportError):
        return False
    return True


def _expected() -> str:
    there = ["'auto'", "'cpu'", *(f"'cuda:{number}'" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("'mps'")
    return f"device may be {', '.join(there[:-1])} or {there[-1]} here"
