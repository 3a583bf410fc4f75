"""Figures of a benchmark in all and in parts, and the document that states them."""

from __future__ import annotations

import json

import pytest

from conf.errors import UserError
from rl.run.benchmark import benchmark_figures, count_rows, figure_rows, figures_json, part_rows
from rl.run.evaluate import summarise
from rl.run.evaluation_store import Outcome
from rl.types import Message, Prompt, Verdict

pytestmark = pytest.mark.unit


def problem(name: str, source: str = "made", **meta: object) -> Prompt:
    turns = (Message("user", name),)
    return Prompt(id=name, messages=turns, source=source, meta=json.dumps(meta))


def outcomes(pattern: str) -> tuple[Outcome, ...]:
    """`p` passes, `w` is a wrong answer, `n` has no code and was cut."""
    verdicts = {"p": Verdict.PASSED, "w": Verdict.WRONG_ANSWER, "n": Verdict.NO_CODE}
    return tuple(
        Outcome(
            idx,
            verdicts[letter],
            "unclosed" if letter == "n" else "ok",
            "length" if letter == "n" else "stop",
        )
        for idx, letter in enumerate(pattern)
    )


PROBLEMS = [
    problem("a", difficulty="easy"),
    problem("b", difficulty="hard", source="contest"),
    problem("c", difficulty="easy", source="contest"),
    problem("d"),
]
OUTCOMES = {
    "a": outcomes("pppp"),
    "b": outcomes("wwnn"),
    "c": outcomes("pwww"),
    "d": outcomes("ppnn"),
}


def test_the_total_is_that_of_the_estimators() -> None:
    figures = benchmark_figures(PROBLEMS, OUTCOMES, ks=(1, 4), seed=3)
    right = [[o.passed for o in OUTCOMES[p.id]] for p in PROBLEMS]
    assert figures.total == summarise(right, (1, 4), seed=3)
    assert figures.total.pass_at_1 == pytest.approx(7 / 16)
    assert figures.total.avg == pytest.approx(figures.total.pass_at_1)


def test_parts_are_by_difficulty_and_source_in_order_of_appearance() -> None:
    figures = benchmark_figures(PROBLEMS, OUTCOMES, ks=(1,), seed=0)
    easy, hard, unstated = figures.by_difficulty.values()
    assert list(figures.by_difficulty) == ["easy", "hard", "unstated"]
    assert (easy.num_problems, hard.num_problems, unstated.num_problems) == (2, 1, 1)
    assert (easy.avg, hard.avg, unstated.avg) == (5 / 8, 0.0, 0.5)
    assert {name: r.num_problems for name, r in figures.by_source.items()} == {
        "made": 2,
        "contest": 2,
    }


def test_a_source_in_the_meta_data_is_finer_than_that_of_the_data_set() -> None:
    problems = [problem("a", source="lcb"), Prompt(id="b", messages=(), source="lcb", meta="[]")]
    problems.append(
        Prompt(id="c", messages=(), source="lcb", meta='{"source": "leetcode", "difficulty": 3}')
    )
    found = benchmark_figures(problems, OUTCOMES, ks=(1,), seed=0)
    assert list(found.by_source) == ["lcb", "leetcode"]
    assert list(found.by_difficulty) == ["3", "unstated"]


def test_there_is_no_table_of_difficulties_where_none_is_stated() -> None:
    assert benchmark_figures(PROBLEMS[3:], OUTCOMES, ks=(1,), seed=0).by_difficulty == {}


def test_verdicts_reasons_and_finishes_are_counted_over_samples() -> None:
    figures = benchmark_figures(PROBLEMS, OUTCOMES, ks=(1,), seed=0)
    assert list(figures.verdicts.items()) == [
        (Verdict.PASSED, 7),
        (Verdict.WRONG_ANSWER, 5),
        (Verdict.NO_CODE, 4),
    ]
    assert figures.reasons == {"ok": 12, "unclosed": 4}
    assert figures.finishes == {"stop": 12, "length": 4}


def test_the_document_states_the_asked_ks_and_survives_json() -> None:
    figures = benchmark_figures(PROBLEMS, OUTCOMES, ks=(2, 4), seed=0)
    document = json.loads(json.dumps(figures_json(figures, (2, 4))))
    assert document["num_problems"] == 4
    assert document["pass@k"] == {"2": pytest.approx((1 + 0 + 1 / 2 + 5 / 6) / 4), "4": 0.75}
    assert set(document["intervals"]) == {"pass@2", "pass@4", "avg@n"}
    low, high = document["intervals"]["avg@n"]
    assert low <= document["avg@n"] <= high
    assert document["by_difficulty"]["hard"]["pass@k"] == {"2": 0.0, "4": 0.0}
    assert document["by_source"]["contest"]["num_problems"] == 2
    assert document["verdicts"][Verdict.NO_CODE] == 4


def test_a_k_above_the_samples_is_refused() -> None:
    with pytest.raises(UserError, match="k=5"):
        benchmark_figures(PROBLEMS, OUTCOMES, ks=(5,), seed=0)


def test_tables_show_value_and_interval() -> None:
    figures = benchmark_figures(PROBLEMS[:1], OUTCOMES, ks=(1, 4), seed=0)
    assert figure_rows(figures.total, 4, (1, 4)) == [
        ("pass@1", "1.000", "[1.000, 1.000]"),
        ("pass@4", "1.000", "[1.000, 1.000]"),
        ("avg@4", "1.000", "[1.000, 1.000]"),
    ]
    assert part_rows(figures.by_source, (4,)) == [("made", "1", "1.000 [1.000, 1.000]")]
    assert count_rows({"ok": 3, "syntax": 1}) == [("ok", "3", "75.0%"), ("syntax", "1", "25.0%")]
