"""What each test costs in processor time, with the programs and workers that it starts: a plugin, for `make times`.

Processor time says the same on a busy machine, and two cores are done in half of it. Not counted are the imports of the
warm server, and workers of the forkserver.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator

import pytest

import warm

SHOWN = 20

_until = pytest.StashKey[float]()
_costs: Counter[str] = Counter()


def _spent() -> float:
    """Seconds of processor time of this process and of all that it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system + warm.spent()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_until] = _spent()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    now = _spent()
    report.cpu = now - item.stash[_until]  # type: ignore[attr-defined]  # xdist brings it to the first process
    item.stash[_until] = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _costs[report.nodeid] += getattr(report, "cpu", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, seconds in _costs.most_common(SHOWN):
        terminalreporter.write_line(f"{seconds:.2f}s {name}")
    terminalreporter.write_line(f"{sum(_costs.values()):.2f}s for all {len(_costs)} tests")
