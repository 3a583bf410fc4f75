"""What only informs is warned of once each, and what is missing at the end is known."""

from __future__ import annotations

import pytest

from rl.base.best_effort import BestEffort

pytestmark = pytest.mark.unit


def test_each_thing_is_warned_of_once_in_one_line_and_nothing_is_raised():
    warnings: list[str] = []
    effort = BestEffort(warnings.append)
    for _ in range(3):
        for what in ("timeline.json", "wandb"):
            with effort.trying(what):
                raise ConnectionError("no route\nto the tracker")
    assert warnings == [
        f"{what} is not complete: no route; to the tracker; the run goes on"
        for what in ("timeline.json", "wandb")
    ]
    assert effort.missing == ("timeline.json", "wandb")


def test_what_could_be_written_after_all_is_not_missing():
    effort = BestEffort(lambda _: None)
    with effort.trying("report.html"):
        raise OSError
    effort.complete("report.html")
    effort.complete("metrics.jsonl")
    assert effort.missing == ()


def test_an_end_of_the_run_is_not_held_back():
    effort = BestEffort(pytest.fail)
    with pytest.raises(KeyboardInterrupt), effort.trying("report.html"):
        raise KeyboardInterrupt
    assert effort.missing == ()
