"""Replay: a kept program is the sample that it was; those that count as one are kept once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest

from reward.code.normal_form import normalise
from rl.lessons.replay import Kept, kept_of, merged
from rl.samples import sample_of
from rl.types import Extraction, JudgedGroup, Reason
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def judged(codes: Sequence[str], problem: int = 0) -> JudgedGroup:
    """Programs with rewards 0, 1, ...; "" is none."""
    group = make_group(make_prompts(problem + 1)[problem], len(codes), version=4)
    made = make_judged(group, [float(i) for i in range(len(codes))])
    extractions = [
        Extraction(reason=Reason.OK, code=code) if code else Extraction(reason=Reason.EMPTY)
        for code in codes
    ]
    return dataclasses.replace(made, extractions_G=tuple(extractions))


def kept(step: int, codes: Sequence[str], problem: int = 0) -> list[Kept]:
    return kept_of(step, judged(codes, problem), normalise)


def test_a_kept_program_is_learned_from_as_the_sample_that_it_was():
    group = judged(["a", "b"])
    support = np.array([[1, 2], [3, -1], [4, 5], [6, 7]], np.int32)
    first, second = group.group.completions_G
    completions = (first, dataclasses.replace(second, support_TK=support))
    made = dataclasses.replace(group.group, completions_G=completions)
    stored = json.dumps([dataclasses.asdict(k) for k in kept_of(5, _with(group, made), normalise)])
    for index, fields in enumerate(json.loads(stored)):
        again = Kept(**fields).group()
        assert again.rewards_G.tolist() == [float(index)] and again.judge is group.judge
        expected = sample_of(made, index, 0.5)
        found = sample_of(again.group, 0, 0.5)
        for name in ("token_ids", "rollout_logprobs", "support_TK"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.num_prompt_tokens == expected.num_prompt_tokens
        assert (found.prompt_id, found.policy_version) == ("p0", 4)


def _with(group: JudgedGroup, made: object) -> JudgedGroup:
    return dataclasses.replace(group, group=made)  # pyright: ignore[reportArgumentType]


def test_what_has_no_program_or_carries_no_loss_is_not_kept():
    group = dataclasses.replace(judged(["a", "", "c"]), masked_G=np.array([False, False, True]))
    assert [one.reward for one in kept_of(1, group, normalise)] == [0.0]


def test_of_programs_whose_trees_differ_in_names_alone_the_newest_is_kept():
    old = kept(1, ["def f(a): return a", "def f(a): return a + 1"])
    new = kept(2, ["def f(b):\n    return b  # the same"])
    other_problem = kept(2, ["def f(a): return a + 1"], problem=1)
    found = merged(old, [*new, *other_problem], distinct=True, size=9)
    assert [(one.step, one.problem, one.reward) for one in found] == [
        *((1, "p0", 1.0), (2, "p0", 0.0), (2, "p1", 0.0))
    ]
    assert len(merged(old, [*new, *other_problem], distinct=False, size=9)) == 4


def test_the_newest_programs_are_kept():
    found = merged(kept(1, ["a", "b"]), kept(2, ["c"]), distinct=True, size=2)
    assert [one.step for one in found] == [1, 2]
