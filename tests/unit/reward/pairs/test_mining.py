"""What mining promises: pairs of one problem, spread over programs and steps, no duplicates."""

from __future__ import annotations

from collections import Counter

import pytest

from conf.errors import DataError
from reward.pairs.mining import MiningConfig, mine_pairs
from reward.pairs.pairs import LabelledCode
from tests.unit.reward.pairs.programs import program

pytestmark = pytest.mark.unit


def _function(body: str) -> str:
    return f"def f(xs):\n    return {body}"


def test_pairs_are_of_one_problem_and_the_right_way_round() -> None:
    labelled = [
        program(_function(f"{k} + {ord(prompt)}"), 4 if k % 2 else k, prompt=prompt)
        for prompt in "abc"
        for k in range(4)
    ]
    right = {(code.prompt_id, code.code) for code in labelled if code.passed}
    wrong = {(code.prompt_id, code.code) for code in labelled if not code.passed}
    pairs = mine_pairs(labelled, MiningConfig(per_prompt=10, seed=0))
    assert len(pairs) == 3 * 4
    for pair in pairs:
        assert (pair.prompt_id, pair.code_pos) in right
        assert (pair.prompt_id, pair.code_neg) in wrong
        assert pair.question_content == f"question of {pair.prompt_id}"
    assert len({(pair.prompt_id, pair.code_pos, pair.code_neg) for pair in pairs}) == len(pairs)


def test_a_problem_without_both_labels_gives_no_pair() -> None:
    assert (
        mine_pairs([program("a = 1", 4), program("a = 2", 4)], MiningConfig(per_prompt=5, seed=0))
        == []
    )
    assert mine_pairs([program("a = 1", 0)], MiningConfig(per_prompt=5, seed=0)) == []
    assert mine_pairs([], MiningConfig(per_prompt=5, seed=0)) == []


def test_renamed_copies_count_once() -> None:
    rights = [program(f"def f({name}): return {name}", 4) for name in "abcde"]
    wrongs = [program(f"def f({name}): return -{name}", 1) for name in "abcde"]
    assert len(mine_pairs(rights + wrongs, MiningConfig(per_prompt=10, seed=0))) == 1


def test_programs_with_disputed_labels_are_left_out() -> None:
    labelled = [program("a = 1", 4), program("b = 1", 0), program("c = 2", 4), program("d = 3", 0)]
    (pair,) = mine_pairs(labelled, MiningConfig(per_prompt=10, seed=0))
    assert (pair.code_pos, pair.code_neg) == ("c = 2", "d = 3")


def test_each_program_is_used_about_equally_often() -> None:
    rights = [program(_function(f"xs[{k}]"), 4) for k in range(3)]
    wrongs = [program(_function(f"xs[-{k}]"), k % 4) for k in range(1, 7)]
    pairs = mine_pairs(rights + wrongs, MiningConfig(per_prompt=6, seed=0))
    assert set(Counter(pair.code_pos for pair in pairs).values()) == {2}
    assert set(Counter(pair.code_neg for pair in pairs).values()) == {1}


def test_pairs_come_from_all_steps() -> None:
    rights = [program(_function("sum(xs)"), 4)]
    wrongs = [
        program(_function(f"xs[{step}][{k}]"), 0, step=step) for step in range(4) for k in range(9)
    ]
    pairs = mine_pairs(rights + wrongs, MiningConfig(per_prompt=8, seed=0, near_miss=False))
    assert Counter(pair.neg_step for pair in pairs) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_the_first_pair_is_the_nearest_miss() -> None:
    right = program(_function("[x for x in xs if x > 5]"), 4)
    near = program(_function("[x for x in xs if x > 6]"), 3)
    far = program(_function("{len(xs): print('hello')}"), 3)
    worse = program(_function("[x for x in xs if x > 7]"), 1)
    for seed in range(5):
        first = mine_pairs([far, worse, right, near], MiningConfig(per_prompt=2, seed=seed))[0]
        assert first.code_neg == near.code
        assert first.neg_tests_passed == 0.75


def test_mining_is_a_function_of_seed_and_problem_alone() -> None:
    labelled = [
        program(_function(f"xs[{k}]"), 4 if k % 3 == 0 else k % 3, step=k) for k in range(30)
    ]
    alone = mine_pairs(labelled, MiningConfig(per_prompt=6, seed=1))
    others = [program(_function(f"xs[{k}]"), 4 * (k % 2), prompt="q") for k in range(4)]
    assert mine_pairs(others + labelled, MiningConfig(per_prompt=6, seed=1))[-6:] == alone
    assert mine_pairs(labelled, MiningConfig(per_prompt=6, seed=2)) != alone


def test_acecoders_rule_asks_for_a_gap_in_the_share_of_tests() -> None:
    shares = {"a = 1": 9, "a = 2": 8, "a = 3": 6, "a = 4": 4, "a = 5": 1, "a = 6": 0}
    labelled = [program(code, passed, num_tests=10) for code, passed in shares.items()]
    pairs = mine_pairs(labelled, MiningConfig(per_prompt=99, seed=0, rule="acecoder"))
    # More than 0.8 against at least one test passed, and more than 0.4 apart.
    assert {(p.code_pos, p.code_neg) for p in pairs} == {("a = 1", "a = 4"), ("a = 1", "a = 5")}


def test_acecoders_rule_is_refused_where_the_tests_were_not_all_run() -> None:
    code = LabelledCode(prompt_id="p7", question="q", code="a", passed=False, tests_passed=None)
    with pytest.raises(DataError, match="p7:num_passed: rule=acecoder needs"):
        mine_pairs([code], MiningConfig(per_prompt=1, seed=0, rule="acecoder"))


def test_a_pair_says_where_both_programs_come_from() -> None:
    labelled = [program("a = 1", 4, step=3), program("a = 2", 1, step=7)]
    (pair,) = mine_pairs(labelled, MiningConfig(per_prompt=1, seed=0))
    assert (pair.pos_run, pair.pos_step, pair.pos_policy_version) == ("run", 3, 3)
    assert (pair.neg_run, pair.neg_step, pair.neg_policy_version) == ("run", 7, 7)
    assert (pair.pos_tests_passed, pair.neg_tests_passed, pair.source) == (1.0, 0.25, "rollout")
