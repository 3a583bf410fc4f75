"""What every tier shares: doctests are of the fast one, measured figures shown, Ctrl-C heard."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

# Read when torch is loaded. Several processes of pytest share the cores, and threads of torch that
# wait for each other keep them busy: two on each of two cores take many times the work of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples in docstrings as unit tests, so that `-m unit` runs them."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.unit)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a measured figure at the end of the test run."""
    return lambda line: request.node.user_properties.append(("figure", line))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is listened to, also where a shell has started the tests with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests recorded, whichever process ran them."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    figures = [line for r in reports for name, line in r.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for line in dict.fromkeys(figures):  # each phase of a test reports them again
            terminalreporter.write_line(line)
