"""A curriculum by a number of each problem: which are trained on, and in what order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.plan.problems import load_problems, make_sampler
from conf.errors import DataError
from conf.schema import DifficultyConfig
from conf.validate import ConfigError
from rl.problems.difficulty import ranks_of, within
from rl.problems.mixing import MixedSampler, by_source
from rl.problems.prompts import PromptSampler, write_prompts
from rl.types import Message, Prompt
from tests.settings import run_config

pytestmark = pytest.mark.unit


def problems(num: int) -> list[Prompt]:
    """Problems whose pass rates are 0.0, 0.1, ... in no order of their ids."""
    rates = [(7 * index % num) / 10 for index in range(num)]
    return [
        Prompt(
            id=f"p{index}",
            messages=(Message("user", f"question {index}"),),
            meta=json.dumps({"pass_rate": rate, "level": "hard", "right": True}),
        )
        for index, rate in enumerate(rates)
    ]


def by_rate(**more: object) -> DifficultyConfig:
    return DifficultyConfig(field="pass_rate", **more)  # pyright: ignore[reportArgumentType]


def rates(prompts: Sequence[Prompt]) -> list[float]:
    return [json.loads(prompt.meta)["pass_rate"] for prompt in prompts]


def epoch(sampler: PromptSampler, num: int, steps: int, first: int = 1) -> list[Prompt]:
    return [p for step in range(first, first + steps) for p in sampler.take(num, step)]


def test_without_an_order_the_problems_are_those_of_before():
    given = problems(10)
    assert not ranks_of(given, DifficultyConfig()) and not ranks_of(given, by_rate())
    plain = PromptSampler(given, run_seed=3)
    unordered = PromptSampler(given, run_seed=3, ranks=ranks_of(given, by_rate()))
    assert epoch(plain, 2, 10) == epoch(unordered, 2, 10)
    assert within(given, DifficultyConfig()) == given


@pytest.mark.parametrize(("order", "falls"), [("ascending", False), ("descending", True)])
def test_an_epoch_goes_by_the_number_and_has_every_problem_once(order: str, *, falls: bool):
    given = problems(10)
    sampler = PromptSampler(given, run_seed=3, ranks=ranks_of(given, by_rate(order=order)))
    for first in (1, 6):  # each epoch anew
        taken = epoch(sampler, 2, 5, first)
        assert rates(taken) == sorted(rates(given), reverse=falls)


def test_problems_that_are_left_over_are_not_always_the_last_by_the_number():
    given = problems(10)
    sampler = PromptSampler(given, run_seed=0, ranks=ranks_of(given, by_rate(order="ascending")))
    left = [
        {p.id for p in given} - {p.id for p in epoch(sampler, 4, 2, 1 + 2 * number)}
        for number in range(5)
    ]
    assert len(set(map(frozenset, left))) > 1
    assert all(rates(one) == sorted(rates(one)) for one in [epoch(sampler, 4, 2)])


def test_a_resumed_run_takes_the_problems_of_one_that_was_not_stopped():
    given = problems(10)
    ranks = ranks_of(given, by_rate(order="ascending"))
    whole = epoch(PromptSampler(given, 0, ranks), 2, 8)
    again = PromptSampler(given[::-1], 0, ranks)  # a fresh process that read another order
    assert epoch(again, 2, 4, first=5) == whole[8:]


def test_every_source_goes_by_the_number_of_its_own_problems():
    given = problems(10)
    source_of = {prompt.id: "ab"[index % 2] for index, prompt in enumerate(given)}
    shares = by_source({"a": 1, "b": 1}, source_of)
    ranks = ranks_of(given, by_rate(order="ascending"))

    def of(part: Sequence[Prompt]) -> PromptSampler:
        return PromptSampler(part, 0, ranks)

    taken = epoch(MixedSampler(given, 0, shares, "data.sources", of), 2, 5)
    for name in "ab":
        own = [prompt for prompt in taken if source_of[prompt.id] == name]
        assert rates(own) == sorted(rates(own)) and len(own) == 5


def test_problems_outside_the_bounds_are_not_trained_on():
    kept = within(problems(10), by_rate(low=0.2, high=0.5))
    assert sorted(rates(kept)) == [0.2, 0.3, 0.4, 0.5]
    with pytest.raises(DataError, match=r"no problem has a pass_rate from 5 to inf.* 0 to 0\.9"):
        within(problems(10), by_rate(low=5.0))


@pytest.mark.parametrize("field", ["rate", "level", "right"])
def test_what_is_no_number_of_all_problems_is_refused_with_some_of_them(field: str):
    with pytest.raises(DataError, match=rf"4 of 4 problems have no number '{field}'.*p0, p1, p2\)"):
        within(problems(4), DifficultyConfig(field=field))


def test_a_run_reads_bounds_and_order_of_training_problems_alone(tmp_path: Path):
    write_prompts(tmp_path / "train.parquet", problems(10))
    held_out = [Prompt(id="h", messages=(Message("user", "held out"),))]
    write_prompts(tmp_path / "test.parquet", held_out)
    files = ["train_path", "eval_path"]
    cfg = run_config(
        [
            "++data.kind=parquet",
            *(f"++data.{k}={tmp_path}/{k[:-5].replace('eval', 'test')}.parquet" for k in files),
            "++data.difficulty.field=pass_rate",
            "++data.difficulty.low=0.3",
            "++data.difficulty.order=descending",
            "++algorithm.prompts_per_step=2",
        ]
    )
    train, evaluated = load_problems(cfg.data, 0)
    assert evaluated == held_out and len(train) == 7
    assert rates(epoch(make_sampler(cfg, train, {}), 2, 3))[0] >= 0.8


@pytest.mark.parametrize(
    "keys",
    [
        ["++data.difficulty.low=0.1"],
        ["++data.difficulty.order=ascending"],
        [
            "++data.difficulty.field=a",
            "++data.difficulty.low=1",
            "++data.difficulty.high=0",
        ],
    ],
)
def test_bounds_without_a_number_and_bounds_that_hold_nothing_are_refused(keys: list[str]):
    with pytest.raises(ConfigError, match=r"data\.difficulty\."):
        run_config(keys)
