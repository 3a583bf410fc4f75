"""The report in a real browser: filter, open, compare, and nothing leaves the page."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from launch.benches.chromium import Tab, chromium, open_tab
from rl.report.page import Report
from rl.types import Verdict
from tests.unit.rl.report.runs import ROW, bundle, make_run, rows

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt install chromium)"),
]

READY = "document.documentElement?.dataset.ready"
NEEDLE = "needle \U0001f9ea </script><b>not bold</b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve steps; step 5 has a completion without code that says something strange."""
    strange = replace(
        ROW, step=5, prompt_id="p1", question="Add 1 to x.", sample_idx=9, text=NEEDLE, code="",
        reason="no_block", reward=0.0, score=None, verdict=Verdict.NO_CODE,
    )  # fmt: skip
    steps = [rows(step) for step in range(1, 13)]
    steps[4].append(strange)
    directory = make_run(tmp_path_factory.mktemp("run"), steps)
    return Report(directory).write().as_uri()


@pytest.fixture
def tab(page: str) -> Iterator[Callable[..., Tab]]:
    """Opens the page at a place; afterwards it must have fetched nothing and thrown nothing."""
    browser = chromium()
    assert browser is not None
    with open_tab(browser) as opened:

        def at(**place: object) -> Tab:
            opened.open(f"{page}#{urlencode(place)}")
            opened.wait_for(READY)
            return opened

        yield at
        opened.evaluate("new Promise((done) => setTimeout(done, 200))")
        assert opened.requests == [page]
        assert opened.errors == []


def text(opened: Tab, selector: str) -> str:
    return opened.wait_for(f"document.querySelector({selector!r})?.textContent")


def test_a_link_opens_a_completion_with_its_text_as_text(tab: Callable[..., Tab]) -> None:
    opened = tab(step=5, open="p1:9")
    assert text(opened, ".detail pre.raw") == NEEDLE
    assert text(opened, ".detail .question") == "Add 1 to x."  # step 1 carries it
    assert "p1, completion 9, step 5" in text(opened, ".detail h3")
    assert opened.evaluate("document.querySelector('pre.raw b')") is None


def test_a_search_and_a_filter_leave_what_fits(tab: Callable[..., Tab]) -> None:
    opened = tab(step=5)
    keys = "[...document.querySelectorAll('.rows tbody tr')].map((row) => row.dataset.key)"
    assert len(opened.wait_for(keys)) == 7
    opened.evaluate(
        "(() => { const q = byId('filters').elements.q; q.value = 'NEEDLE'; "
        "q.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    opened.wait_for(f"{keys}.length === 1")
    assert opened.evaluate(keys) == ["p1:9"]
    assert "q=NEEDLE" in opened.evaluate("location.hash")
    opened.evaluate("document.querySelector('.rows tbody tr').click()")
    assert text(opened, ".detail pre.raw mark") == "needle"


def test_keys_walk_through_completions_and_steps(tab: Callable[..., Tab]) -> None:
    opened = tab(step=2)
    opened.press("j")
    first = text(opened, ".detail h3")
    opened.press("j")
    opened.wait_for(f"document.querySelector('.detail h3').textContent !== {first!r}")
    opened.press("]")
    opened.wait_for("document.querySelector('.detail h3')?.textContent.includes('step 3')")


def test_two_steps_stand_side_by_side_on_the_same_problem(tab: Callable[..., Tab]) -> None:
    opened = tab(step=2, compare=11, open="p2:1", open2="p2:1")
    opened.wait_for("document.querySelectorAll('.detail pre.code').length === 2")
    codes = opened.evaluate(
        "[...document.querySelectorAll('.detail pre.code')].map((code) => code.textContent)"
    )
    assert codes == [f"def f(x):\n    return x + 2  # {step}.1" for step in (2, 11)]


def test_programs_and_tests_of_a_problem_stand_in_a_matrix(tmp_path: Path) -> None:
    uri = Report(make_run(tmp_path, [bundle(1)])).write().as_uri()
    browser = chromium()
    assert browser is not None
    with open_tab(browser) as opened:
        opened.open(f"{uri}#step=1&open=p1:1")
        opened.wait_for(READY)
        lines = "[...document.querySelectorAll('.matrix tbody tr')].map((row) => row.innerText)"
        programs, tests = opened.evaluate(lines)[:3], opened.evaluate(lines)[3:]
        assert [line.split("\t")[:4] for line in programs] == [
            ["program 0", "right", "\u2713", "\u2713"],
            ["program 1", "wrong", "\u2713", "\u2717"],
            ["program 2", "invalid", "\u2013", "\u2013"],
        ]
        assert "return x + 1  # 1.0" in programs[0]
        assert "nothing to run: no_block" in programs[2]
        assert [line.split(maxsplit=3) for line in tests] == [
            ["test", "0", "right", "assert f(0) == 1"],  # the wrong program passes it
            ["test", "1", "telling", "assert f(1) == 1"],
        ]
        said = "[...document.querySelectorAll('td.cell')].map((cell) => cell.ariaLabel)"
        assert opened.evaluate(said)[2:4] == [
            "program 1 passes test 0",
            "program 1 does not pass test 1",
        ]
        assert "3 programs, 1 right; 2 tests, 2 right, 1 telling" in text(opened, "caption")
        current = "document.querySelector('.matrix tr[aria-current=true]').innerText"
        assert opened.evaluate(current).startswith("program 1")
        opened.evaluate("document.querySelectorAll('.matrix thead button')[1].click()")
        opened.wait_for("document.querySelector('.detail h3').textContent.includes('p1#test')")
        assert text(opened, ".detail pre.code") == "assert f(1) == 1"
        assert opened.errors == []


def test_answers_of_several_tasks_can_be_told_apart(tmp_path: Path) -> None:
    uri = Report(make_run(tmp_path, [bundle(1)])).write().as_uri()
    browser = chromium()
    assert browser is not None
    keys = "[...document.querySelectorAll('.rows tbody tr')].map((row) => row.dataset.key)"
    with open_tab(browser) as opened:
        opened.open(f"{uri}#step=1&problem=p1")
        opened.wait_for(READY)
        asked = ["p1:0", "p1:1", "p1:2", "p1#test:0", "p1#test:1"]
        assert opened.evaluate(keys) == asked
        assert not opened.evaluate("byId('tasks').hidden")
        opened.open(f"{uri}#step=1&problem=p1&task=test")
        opened.wait_for(f"{keys}.length === 2")
        assert opened.evaluate(keys) == asked[3:]


def test_a_run_of_programs_alone_shows_no_matrix(tab: Callable[..., Tab]) -> None:
    opened = tab(step=5, open="p1:1")
    assert text(opened, ".detail pre.code")
    assert opened.evaluate("document.querySelector('.matrix')") is None
    assert opened.evaluate("byId('tasks').hidden")


def test_a_step_that_is_shown_in_part_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rl.report.sources.BUDGET_BYTES", 4000)
    rng = random.Random(0)
    noisy = [replace(row, text=rng.randbytes(300).hex(), code="") for row in rows(1, 50)]
    uri = Report(make_run(tmp_path, [noisy])).write().as_uri()
    browser = chromium()
    assert browser is not None
    with open_tab(browser) as opened:
        opened.open(uri)
        opened.wait_for(READY)
        assert "shown of 100 sampled" in text(opened, ".count")
        assert "of 100 completions are shown" in text(opened, "#rollouts > .about")
