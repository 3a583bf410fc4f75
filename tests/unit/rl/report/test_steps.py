"""A step packs into a text that says the same when it is unpacked, within its share of the page."""

from __future__ import annotations

import base64
import gzip
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.report.steps import MAX_TEXT, PackedStep, clip, pack_step, place_code
from rl.run.rollouts import RolloutRow
from rl.types import Verdict
from tests.unit.rl.report.runs import ROW, bundle, rows

pytestmark = pytest.mark.unit

ALL = 10**9


def unpack(packed: PackedStep) -> dict[str, Any]:
    return json.loads(gzip.decompress(base64.b64decode(packed.data)))


def code_of(columns: dict[str, Any], n: int) -> str:
    """What the page takes for the code: offsets count UTF-16 units there."""
    place = columns["code"][n]
    if isinstance(place, str):
        return place
    units = columns["text"][n].encode("utf-16-le")
    return units[2 * place[0] : 2 * (place[0] + place[1])].decode("utf-16-le")


def test_unpacks_to_every_completion_of_the_step() -> None:
    given_rows = rows(7)
    columns = unpack(pack_step(given_rows, {}, ALL))
    found = {
        (
            columns["problems"][columns["problem"][n]]["id"],
            columns["sample_idx"][n],
            columns["text"][n],
            code_of(columns, n),
            columns["reward"][n],
        )
        for n in range(len(columns["text"]))
    }
    assert found == {(r.prompt_id, r.sample_idx, r.text, r.code, r.reward) for r in given_rows}


def test_rewards_of_a_step_are_means_of_each_task_by_itself() -> None:
    program, test = replace(ROW, reward=0.5), replace(ROW, task="test", reward=-1.0)
    packed = pack_step([program, replace(program, reward=1.0), test], {}, 1)
    assert packed.rewards == {"code": 0.75, "test": -1.0}


@given(st.text(), st.text(min_size=1), st.text())
def test_the_place_of_code_is_counted_as_the_page_counts(
    before: str, code: str, after: str
) -> None:
    text = before + code + after
    columns = {"text": [text], "code": [place_code(text, code)]}
    assert code_of(columns, 0) == code


def test_code_that_is_not_in_the_text_is_kept_itself() -> None:
    columns = unpack(pack_step([replace(ROW, text="a", code="b")], {}, ALL))
    assert code_of(columns, 0) == "b"


def test_a_share_that_is_too_small_keeps_the_same_problems_at_every_step() -> None:
    rng = random.Random(0)

    def noisy(step: int) -> list[Any]:
        return [replace(row, text=rng.randbytes(200).hex(), code="") for row in rows(step, 40)]

    first, second = pack_step(noisy(1), {}, 6000), pack_step(noisy(2), {}, 6000)
    for packed in (first, second):
        assert packed.num_rows == 80
        assert 1 < packed.num_shown < 80
        assert len(packed.data) <= 6000
        assert len(unpack(packed)["text"]) == packed.num_shown
    common = min(len(first.prompt_ids), len(second.prompt_ids))
    assert first.prompt_ids[:common] == second.prompt_ids[:common]


def test_one_completion_is_kept_whatever_the_share() -> None:
    assert pack_step(rows(1), {}, 1).num_shown == 1


def test_figures_are_of_all_completions_not_of_those_shown() -> None:
    given_rows = [
        replace(
            ROW,
            sample_idx=n,
            reward=float(n),
            verdict=Verdict.PASSED if n else Verdict.WRONG_ANSWER,
        )
        for n in range(4)
    ]
    packed = pack_step(given_rows, {}, 1)
    assert (packed.rewards, packed.pass_rate) == ({"code": 1.5}, 0.75)


def test_answers_about_a_problem_stand_together_with_their_matrix() -> None:
    def of(problem: int) -> list[RolloutRow]:
        return [row for row in bundle(1) if row.problem == f"p{problem}"]

    columns = unpack(pack_step([*of(0), *of(1)], {}, ALL))
    about = [columns["problems"][place]["about"] for place in columns["problem"]]
    assert len(set(about[:5])) == len(set(about[5:])) == 1
    assert columns["task"] == ["code", "code", "code", "test", "test"] * 2
    assert [matrix["programs"] for matrix in columns["matrices"]] == [[0, 1, 2], [5, 6, 7]]
    assert [matrix["tests"] for matrix in columns["matrices"]] == [[3, 4], [8, 9]]
    assert columns["matrices"][0]["cells"] == [[True, True], [True, False], [None, None]]
    assert columns["matrices"][0]["programs_worth"] == ["right", "wrong", "invalid"]
    assert columns["matrices"][0]["tests_worth"] == ["right", "telling"]


def test_a_step_of_programs_alone_packs_no_matrix() -> None:
    columns = unpack(pack_step(rows(1), {}, ALL))
    assert columns["matrices"] == []
    assert all(problem["about"] == problem["id"] for problem in columns["problems"])


def test_a_matrix_has_no_place_of_a_row_that_the_page_leaves_out() -> None:
    given_rows = bundle(1)
    limit = len(pack_step(given_rows, {}, ALL).data)
    while (packed := pack_step(given_rows, {}, limit)).num_shown > 1:
        for matrix in unpack(packed)["matrices"]:
            assert max([-1, *matrix["programs"], *matrix["tests"]]) < packed.num_shown
            assert len(matrix["cells"]) == len(matrix["programs"]) == len(matrix["programs_worth"])
            assert {len(cells) for cells in matrix["cells"]} <= {len(matrix["tests"])}
            assert len(matrix["tests_worth"]) == len(matrix["tests"])
        limit = len(packed.data) - 1


def test_a_problem_that_an_earlier_step_carries_is_not_repeated() -> None:
    columns = unpack(pack_step(rows(2, num_problems=2), {"p0": 1}, ALL))
    texts = {problem["id"]: problem for problem in columns["problems"]}
    assert texts["p0"] == {"id": "p0", "about": "p0", "home": 1}
    assert texts["p1"]["question"] == "Add 1 to x."


def test_a_long_completion_keeps_both_ends_and_says_what_is_missing() -> None:
    clipped = clip("a" * MAX_TEXT + "b" * MAX_TEXT)
    assert len(clipped) < MAX_TEXT + 100
    assert clipped.startswith("aaa")
    assert clipped.endswith("bbb")
    assert f"{MAX_TEXT:,} characters left out" in clipped


def test_a_score_that_is_missing_or_no_number_is_null() -> None:
    given_rows = [replace(ROW, score=None), replace(ROW, sample_idx=1, score=float("nan"))]
    assert unpack(pack_step(given_rows, {}, ALL))["score"] == [None, None]
