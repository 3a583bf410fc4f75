"""What is on the disk of a best-of-N: kept by settings and programs, and never found out twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import DataError
from reward.select.best_of_n import Evidence
from reward.select.store import codes_digest, evidence_store, verdicts_store
from reward.select.verdicts import Verdicts
from rl.run.evaluation_store import SampleRow
from rl.types import Verdict

pytestmark = pytest.mark.unit


def make_samples(num: int) -> dict[str, list[SampleRow]]:
    """One program of each of some problems."""
    return {
        f"p{index}": [
            SampleRow(
                problem_id=f"p{index}",
                problem="digest",
                sample_idx=0,
                prompt=[],
                text="",
                code=f"x = {index}",
                reason="ok",
                verdict=Verdict.PASSED,
                num_passed=0,
                num_tests=1,
                seconds=0.0,
                detail="",
                finish="stop",
                num_tokens=1,
            )
        ]
        for index in range(num)
    }


def make_evidence(problem_id: str, codes: str) -> Evidence:
    return Evidence(
        problem_id=problem_id,
        codes=codes,
        scores=[1.0],
        tests=[],
        num_asked=1,
        num_test_tokens=1,
        passed=[""],
        outputs=[[]],
        num_programs=0,
        seconds=None,
    )


def test_evidence_on_disk_counts_while_settings_and_programs_are_the_same(tmp_path: Path) -> None:
    samples = make_samples(3)
    store = evidence_store(tmp_path, {"num_tests": 4})
    assert store.finished(samples) == {}
    store.append(make_evidence("p0", codes_digest(samples["p0"])))
    store.append(make_evidence("p1", "of other programs"))
    assert list(store.finished(samples)) == ["p0"]
    assert list(store.finished(samples, {"p0"})) == []  # without the seconds of its stages
    assert evidence_store(tmp_path, {"num_tests": 5}).finished(samples) == {}

    # A torn line is no evidence, and does not spoil what comes after it.
    with store.path.open("a") as file:
        file.write('{"problem_id": "p2"')
    assert list(store.finished(samples)) == ["p0"]
    store.append(make_evidence("p2", codes_digest(samples["p2"])))
    assert list(store.finished(samples)) == ["p0", "p2"]
    assert all(json.loads(line) for line in store.path.read_text().splitlines())


def test_a_file_that_is_no_evidence_is_refused_by_line(tmp_path: Path) -> None:
    store = evidence_store(tmp_path, {})
    store.path.write_text('{"something": "else"}\n')
    with pytest.raises(DataError, match=r"evidence-.*\.jsonl:1:-: not evidence"):
        store.finished({})


def test_what_a_language_model_said_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    samples = make_samples(1)
    store = verdicts_store(tmp_path, {"votes": 1})
    said = Verdicts(
        problem_id="p0",
        codes=codes_digest(samples["p0"]),
        scores=[0.5],
        chosen=None,
        num_requests=1,
        num_unread=0,
        num_choices=1,
        num_undecided=0,
        seconds=None,
    )
    store.append(said)
    assert store.path.name.startswith("verdicts-")
    assert verdicts_store(tmp_path, {"votes": 1}).finished(samples) == {"p0": said}
    assert evidence_store(tmp_path, {"votes": 1}).finished(samples) == {}
    assert verdicts_store(tmp_path, {"votes": 1}, anew=True).finished(samples) == {}
