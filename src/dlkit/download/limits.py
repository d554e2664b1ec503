"""What a download may take: time, tries, and room on the disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError

__all__ = ["DownloadLimits", "Patience", "USUAL_LIMITS", "USUAL_PATIENCE"]


@dataclass(frozen=True, kw_only=True)
class DownloadLimits:
    """How much a file may have, and an archive unpack to, before it is refused.

    What headers claim is refused before a byte is written; what is written is counted all the same, as headers lie.

    Args:
        max_file: Bytes of a file that `fetch` gets without being told its `size`, 64 GB by default.
        max_bytes: Bytes of all files together. The default, 64 GiB, is more than nearly all archives hold, and stops
            a bomb of some kilobytes before it fills most disks.
        max_members: Files, folders and links together, the folders that are only implied by a name included.
            The default, 2 million, is more than ImageNet has, and what one folder tree still bears.
        keep_free: Bytes of the disk that stay free, looked at again and again; by default 1 GB, or 1 % of a small disk.

    Raises:
        ArgumentError: A limit is not a whole number of at least 1 (0 for `keep_free`).

    >>> DownloadLimits(max_bytes=10_000_000).max_members
    2000000
    """

    max_file: int = 64 * 10**9
    max_bytes: int = 64 << 30
    max_members: int = 2_000_000
    keep_free: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_file", "max_bytes", "max_members"):
            whole_number(f"DownloadLimits: {name}", getattr(self, name), least=1)
        if self.keep_free is not None:
            whole_number("DownloadLimits: keep_free", self.keep_free, least=0)


USUAL_LIMITS = DownloadLimits()


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server and how often to come back.

    Args:
        connect: Seconds until a connection must stand.
        read: Seconds that a server may send nothing. The transfer as a whole may take as long as it takes.
        attempts: Failures in a row before a mirror is abandoned; one that brought new bytes counts as the first again.
        backoff: Seconds to wait after the first failure; twice as long after each further one. While one mirror
            waits, the next one is tried.
        longest_pause: Seconds that no wait exceeds. A server that asks for more (`Retry-After`) is abandoned.

    Raises:
        ArgumentError: An invalid value.

    >>> Patience(attempts=2).read
    30.0
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 5
    backoff: float = 0.5
    longest_pause: float = 60.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "backoff", "longest_pause"):
            value, zero = getattr(self, name), name in ("backoff", "longest_pause")
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and not zero):
                least = "0 or more" if zero else "more than 0"
                raise ArgumentError(f"Patience: {name} must be a number of seconds, {least}, not {value!r}")
        whole_number("Patience: attempts", self.attempts, least=1)


USUAL_PATIENCE = Patience()
