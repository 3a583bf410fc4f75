"""An interrupted evaluation loses no finished group and never mixes samples of other settings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from conf.errors import DataError, UserError
from rl.run.evaluation_store import (
    Outcome,
    SampleRow,
    SampleStore,
    problem_digest,
    samples_by_problem,
)
from rl.types import Message, Prompt, Verdict

pytestmark = pytest.mark.unit

SETTINGS = {"temperature": 0.6, "seed": 0, "model": "abc"}
NUM_SAMPLES = 2
PROBLEMS = [Prompt(id=name, messages=(Message("user", name),), tests="[]") for name in "abc"]


def row(prompt: Prompt, idx: int, verdict: Verdict = Verdict.PASSED) -> SampleRow:
    return SampleRow(
        problem_id=prompt.id,
        problem=problem_digest(prompt),
        sample_idx=idx,
        prompt=[{"role": "user", "content": prompt.question}],
        text=f"answer {idx}\nof \ud800 {prompt.id}",
        code="x",
        reason="ok",
        verdict=verdict,
        num_passed=1,
        num_tests=2,
        seconds=0.5,
        detail="",
        finish="stop",
        num_tokens=7,
    )


def group(prompt: Prompt, *verdicts: Verdict) -> list[SampleRow]:
    return [row(prompt, idx, verdict) for idx, verdict in enumerate(verdicts)]


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """A store with the finished groups a and b."""
    store = SampleStore(tmp_path / "results" / "out.json", NUM_SAMPLES)
    store.begin(SETTINGS, anew=False)
    store.append(group(PROBLEMS[0], Verdict.PASSED, Verdict.TIMEOUT))
    store.append(group(PROBLEMS[1], Verdict.NO_CODE, Verdict.PASSED))
    return store


def finished(store: SampleStore) -> list[str]:
    return list(store.finished(SETTINGS, PROBLEMS))


def test_files_lie_beside_the_output_and_rows_read_back_as_they_were(store: SampleStore) -> None:
    assert store.path.name == "out.samples.jsonl"
    assert store.settings_path.name == "out.settings.json"
    rows = list(store.rows())
    assert rows[:2] == group(PROBLEMS[0], Verdict.PASSED, Verdict.TIMEOUT)
    assert len(rows) == len(store.path.read_text().splitlines()) == 4


def test_finished_groups_are_found_with_their_outcomes(store: SampleStore) -> None:
    found = store.finished(SETTINGS, PROBLEMS)
    assert found == {
        "a": (Outcome(0, Verdict.PASSED, "ok", "stop"), Outcome(1, Verdict.TIMEOUT, "ok", "stop")),
        "b": (Outcome(0, Verdict.NO_CODE, "ok", "stop"), Outcome(1, Verdict.PASSED, "ok", "stop")),
    }


def test_nothing_is_finished_before_the_first_run(tmp_path: Path) -> None:
    assert finished(SampleStore(tmp_path / "out.json", NUM_SAMPLES)) == []


@pytest.mark.parametrize("kept_bytes", [1, 40, -1])
def test_a_torn_last_line_costs_its_group_only(store: SampleStore, kept_bytes: int) -> None:
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join(lines[:3]) + lines[3][:kept_bytes])
    assert finished(store) == ["a"]
    store.begin(SETTINGS, anew=False)
    assert [r.problem_id for r in store.rows()] == ["a", "a"]
    store.append(group(PROBLEMS[1], Verdict.PASSED, Verdict.PASSED))
    assert finished(store) == ["a", "b"]


def test_a_group_that_lost_samples_is_not_finished(store: SampleStore) -> None:
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join(lines[1:]))
    assert finished(store) == ["b"]


def test_reading_changes_nothing_on_disk(store: SampleStore) -> None:
    store.path.write_bytes(store.path.read_bytes()[:-5])
    before = store.path.read_bytes()
    finished(store)
    assert store.path.read_bytes() == before


def test_a_group_that_the_sandbox_could_not_judge_is_not_finished(store: SampleStore) -> None:
    store.append(group(PROBLEMS[2], Verdict.PASSED, Verdict.SANDBOX_ERROR))
    assert finished(store) == ["a", "b"]
    store.begin(SETTINGS, anew=False)
    assert {r.problem_id for r in store.rows()} == {"a", "b"}


def test_what_can_not_be_judged_is_final_and_no_pass(store: SampleStore) -> None:
    store.append(group(PROBLEMS[2], Verdict.PASSED, Verdict.UNJUDGED))
    outcomes = store.finished(SETTINGS, PROBLEMS)[PROBLEMS[2].id]
    assert [outcome.passed for outcome in outcomes] == [True, False]


def test_samples_of_problems_beyond_the_limit_are_kept_but_not_counted(store: SampleStore) -> None:
    assert list(store.finished(SETTINGS, PROBLEMS[:1])) == ["a"]
    store.begin(SETTINGS, anew=False)
    assert finished(store) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 1.0}, ["temperature: ", "with 0.6", "now it is 1.0"]),
        ({"seed": 1, "model": "def"}, ["model: ", '"abc"', '"def"', "seed: "]),
        ({"rule": "last_block"}, ["rule: ", "null", '"last_block"']),
    ],
)
def test_other_settings_are_refused_by_name(
    store: SampleStore, change: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        store.finished(SETTINGS | change, PROBLEMS)
    for word in [*words, "resume=never", "output="]:
        assert word in str(caught.value)


def test_samples_without_their_settings_are_refused(store: SampleStore) -> None:
    store.settings_path.unlink()
    with pytest.raises(UserError, match="resume=never"):
        finished(store)


def test_a_problem_that_has_changed_is_refused_by_name(store: SampleStore) -> None:
    changed = [dataclasses.replace(PROBLEMS[0], tests="[1]"), *PROBLEMS[1:]]
    with pytest.raises(DataError, match="problem 'a' has another text or other tests"):
        store.finished(SETTINGS, changed)


def test_a_line_of_something_else_is_refused_by_its_place(store: SampleStore) -> None:
    with store.path.open("a") as file:
        file.write(json.dumps({"some": "thing"}) + "\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:5:1: not a sample"):
        finished(store)


def test_starting_anew_drops_samples_and_settings(store: SampleStore) -> None:
    other = SETTINGS | {"seed": 1}
    store.begin(other, anew=True)
    assert list(store.rows()) == []
    store.append(group(PROBLEMS[0], Verdict.PASSED, Verdict.PASSED))
    assert list(store.finished(other, PROBLEMS)) == ["a"]


def test_samples_of_an_evaluation_are_read_in_order_and_only_as_many_as_asked(
    store: SampleStore,
) -> None:
    found = samples_by_problem(store.path, PROBLEMS[:2], NUM_SAMPLES)
    assert [[r.verdict for r in found[name]] for name in "ab"] == [
        [Verdict.PASSED, Verdict.TIMEOUT],
        [Verdict.NO_CODE, Verdict.PASSED],
    ]
    assert [r.sample_idx for r in samples_by_problem(store.path, PROBLEMS[1:2], 1)["b"]] == [0]


def test_samples_that_are_missing_changed_or_undecided_are_refused(
    store: SampleStore, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        samples_by_problem(tmp_path / "none.jsonl", PROBLEMS[:1], 1)
    with pytest.raises(DataError, match="has 0 samples of problem 'c'"):
        samples_by_problem(store.path, PROBLEMS, NUM_SAMPLES)
    with pytest.raises(DataError, match="has 2 samples of problem 'a', and num_samples=3"):
        samples_by_problem(store.path, PROBLEMS[:1], 3)
    changed = dataclasses.replace(PROBLEMS[0], entry_point="g")
    with pytest.raises(DataError, match="another text or other tests"):
        samples_by_problem(store.path, [changed], NUM_SAMPLES)
    store.append(group(PROBLEMS[2], Verdict.PASSED, Verdict.SANDBOX_ERROR))
    with pytest.raises(DataError, match="could not be run"):
        samples_by_problem(store.path, PROBLEMS, NUM_SAMPLES)
