"""Each step has its share of each part of the problems, whatever their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.plan.problems import load_problems, make_sampler
from conf.errors import DataError
from rl.problems.mixing import MixedSampler, StagedSampler, by_source, by_tests
from rl.problems.prompts import PromptSampler
from rl.types import Prompt
from tests.settings import shipped_config

pytestmark = pytest.mark.unit

TESTED = [Prompt(id=f"t{i}", messages=(), tests="[]") for i in range(6)]
UNTESTED = [Prompt(id=f"u{i}", messages=()) for i in range(20)]
MIXED = [*TESTED[:3], *UNTESTED, *TESTED[3:]]


def mixed(seed: int, num: int, num_untested: int) -> MixedSampler:
    shares = by_tests(num, num_untested)
    return MixedSampler(
        MIXED, seed, shares, "data.untested_share", lambda part: PromptSampler(part, seed)
    )


def test_every_step_has_so_many_without_tests_and_is_a_function_of_its_number() -> None:
    sampler = mixed(7, 8, 5)
    steps = [sampler.take(8, step) for step in range(1, 13)]
    assert all(sum(p.tests is None for p in step) == 5 for step in steps)
    assert all(len({p.id for p in step}) == 8 for step in steps)
    assert mixed(7, 8, 5).take(8, 9) == steps[8]  # a run that goes on
    assert mixed(8, 8, 5).take(8, 9) != steps[8]


def test_either_part_has_epochs_of_its_own() -> None:
    sampler = mixed(0, 8, 5)
    steps = [sampler.take(8, step) for step in (1, 2, 3, 4)]
    asked = [p.id for step in steps for p in step]
    assert sorted(name for name in asked if name[0] == "u") == sorted(p.id for p in UNTESTED)
    assert sorted(name for name in asked if name[0] == "t") == sorted(2 * [p.id for p in TESTED])


def test_before_the_second_stage_all_have_tests_and_then_it_goes_as_from_the_start() -> None:
    def staged(from_step: int) -> StagedSampler:
        return StagedSampler(MIXED, 7, (mixed(7, 6, 0), mixed(7, 6, 4)), from_step)

    steps = [staged(4).take(6, step) for step in range(1, 10)]
    assert [sum(p.tests is None for p in step) for step in steps] == 3 * [0] + 6 * [4]
    assert steps[3:] == [mixed(7, 6, 4).take(6, step) for step in range(1, 7)]
    assert staged(4).take(6, 8) == steps[7]  # a run that goes on


def test_a_run_in_two_stages_takes_no_untested_problem_before_the_second() -> None:
    cfg = shipped_config(
        ["experiment=synthetic", "++data.num_train=16", "++data.untested_from_step=3"]
    )
    train, _ = load_problems(cfg.data, cfg.seed)
    sampler = make_sampler(cfg, train, {})
    nums = [sum(p.tests is None for p in sampler.take(16, step)) for step in (1, 2, 3, 4)]
    assert nums == [0, 0, 8, 8]
    few = replace(cfg, data=replace(cfg.data, untested_from_step=0))
    assert make_sampler(few, train, {}).take(16, 1) == sampler.take(16, 3)
    with pytest.raises(DataError, match=r"data\.untested_from_step: a step takes 16 .* are 15"):
        make_sampler(cfg, train[1:], {})


def test_a_share_of_all_takes_no_problem_with_tests() -> None:
    assert all(p.tests is None for p in mixed(0, 8, 8).take(8, 3))
    assert all(p.tests is not None for p in mixed(0, 5, 0).take(5, 3))


@pytest.mark.parametrize(("num", "num_untested", "what"), [(12, 5, "with"), (24, 21, "without")])
def test_a_part_that_is_too_small_is_refused(num: int, num_untested: int, what: str) -> None:
    with pytest.raises(DataError, match=f"data.untested_share: a step takes .* {what} tests, and"):
        mixed(0, num, num_untested)


def test_every_step_has_so_many_problems_of_each_source_and_they_alternate() -> None:
    source_of = {prompt.id: "few" if prompt.id[0] == "t" else "many" for prompt in MIXED}
    shares = by_source({"few": 2, "many": 6}, source_of)
    sampler = MixedSampler(MIXED, 3, shares, "data.sources", lambda part: PromptSampler(part, 3))
    steps = [[source_of[p.id] for p in sampler.take(8, step)] for step in range(1, 9)]
    assert all(step.count("few") == 2 for step in steps)
    # So has each of two minibatches.
    assert all(step[:4].count("few") == step[4:].count("few") == 1 for step in steps)
    with pytest.raises(DataError, match=r"data\.sources: a step takes 7 problems of few, and"):
        MixedSampler(
            MIXED,
            3,
            by_source({"few": 7}, source_of),
            "data.sources",
            lambda part: PromptSampler(part, 3),
        )
