"""What every tier shares: doctests belong to the fast one, and measured figures are shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_FIGURES: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples in docstrings as unit tests, so that `-m unit` runs them."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.unit)


@pytest.fixture
def record() -> Callable[[str], None]:
    """Print a measured figure at the end of the test run."""
    return _FIGURES.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests recorded."""
    if _FIGURES:
        terminalreporter.section("figures")
        for line in _FIGURES:
            terminalreporter.write_line(line)
