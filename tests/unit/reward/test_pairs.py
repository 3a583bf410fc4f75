"""What preference pairs promise: the same problem, a verified label, no duplicates, no leaks."""

from __future__ import annotations

import ast
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.normal_form import normalise
from reward.pairs import (
    LabelledCode,
    Pair,
    mine_pairs,
    mutants,
    read_pairs,
    split_by_prompt,
    write_pairs,
)
from rl.errors import DataError, UserError

pytestmark = pytest.mark.unit


def _code(
    code: str, num_passed: int = 0, *, prompt: str = "p", step: int = 0, num_tests: int = 4
) -> LabelledCode:
    return LabelledCode(
        prompt_id=prompt,
        question=f"question of {prompt}",
        code=code,
        passed=num_passed == num_tests,
        num_passed=num_passed,
        num_tests=num_tests,
        step=step,
        policy_version=step,
    )


def _function(body: str) -> str:
    return f"def f(xs):\n    return {body}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(xs): return [x for x in xs]", "def f(ys):\n\n    return [ y for y in ys ]  # why"),
        ('def f(x):\n    "doc"\n    return x', "def f(x):\n    return x"),
        ("def f(x: int) -> int: return x", "def f(y) -> int: return y"),
        ("n = int(input())\nprint(n)", "k = int(input())\nprint(k)"),
        ("def (", " def ( \n"),
    ],
)
def test_layout_and_variable_names_do_not_make_a_program_different(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x", "def g(x): return x"),
        ("def f(x, y): return x", "def f(x, y): return y"),
        ("def f(x): return x > 5", "def f(x): return x > 6"),
        ("def f(x): return 1", "def f(x): return True"),
        ("sum = 0\nprint(sum)", "max = 0\nprint(max)"),
        ("def f(a, b): return a\nf(a=1, b=2)", "def f(b, a): return b\nf(a=1, b=2)"),
        ("import math as m\nm.pi", "import cmath as m\nm.pi"),
    ],
)
def test_what_changes_the_meaning_makes_a_program_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_pairs_are_of_one_problem_and_the_right_way_round() -> None:
    labelled = [
        _code(_function(f"{k} + {ord(prompt)}"), 4 if k % 2 else k, prompt=prompt)
        for prompt in "abc"
        for k in range(4)
    ]
    right = {(code.prompt_id, code.code) for code in labelled if code.passed}
    wrong = {(code.prompt_id, code.code) for code in labelled if not code.passed}
    pairs = mine_pairs(labelled, per_prompt=10, seed=0)
    assert len(pairs) == 3 * 4
    for pair in pairs:
        assert (pair.prompt_id, pair.code_pos) in right
        assert (pair.prompt_id, pair.code_neg) in wrong
        assert pair.question_content == f"question of {pair.prompt_id}"
    assert len({(pair.prompt_id, pair.code_pos, pair.code_neg) for pair in pairs}) == len(pairs)


def test_a_problem_without_both_labels_gives_no_pair() -> None:
    assert mine_pairs([_code("a = 1", 4), _code("a = 2", 4)], per_prompt=5, seed=0) == []
    assert mine_pairs([_code("a = 1", 0)], per_prompt=5, seed=0) == []
    assert mine_pairs([], per_prompt=5, seed=0) == []


def test_renamed_copies_count_once() -> None:
    rights = [_code(f"def f({name}): return {name}", 4) for name in "abcde"]
    wrongs = [_code(f"def f({name}): return -{name}", 1) for name in "abcde"]
    assert len(mine_pairs(rights + wrongs, per_prompt=10, seed=0)) == 1


def test_programs_with_disputed_labels_are_left_out() -> None:
    labelled = [_code("a = 1", 4), _code("b = 1", 0), _code("c = 2", 4), _code("d = 3", 0)]
    (pair,) = mine_pairs(labelled, per_prompt=10, seed=0)
    assert (pair.code_pos, pair.code_neg) == ("c = 2", "d = 3")


def test_each_program_is_used_about_equally_often() -> None:
    rights = [_code(_function(f"xs[{k}]"), 4) for k in range(3)]
    wrongs = [_code(_function(f"xs[-{k}]"), k % 4) for k in range(1, 7)]
    pairs = mine_pairs(rights + wrongs, per_prompt=6, seed=0)
    assert set(Counter(pair.code_pos for pair in pairs).values()) == {2}
    assert set(Counter(pair.code_neg for pair in pairs).values()) == {1}


def test_pairs_come_from_all_steps() -> None:
    rights = [_code(_function("sum(xs)"), 4)]
    wrongs = [
        _code(_function(f"xs[{step}][{k}]"), 0, step=step) for step in range(4) for k in range(9)
    ]
    pairs = mine_pairs(rights + wrongs, per_prompt=8, seed=0, near_miss=False)
    assert Counter(pair.step for pair in pairs) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_the_first_pair_is_the_nearest_miss() -> None:
    right = _code(_function("[x for x in xs if x > 5]"), 4)
    near = _code(_function("[x for x in xs if x > 6]"), 3)
    far = _code(_function("{len(xs): print('hello')}"), 3)
    worse = _code(_function("[x for x in xs if x > 7]"), 1)
    for seed in range(5):
        first = mine_pairs([far, worse, right, near], per_prompt=2, seed=seed)[0]
        assert first.code_neg == near.code
        assert first.neg_tests_passed == 0.75


def test_mining_is_a_function_of_seed_and_problem_alone() -> None:
    labelled = [_code(_function(f"xs[{k}]"), 4 if k % 3 == 0 else k % 3, step=k) for k in range(30)]
    alone = mine_pairs(labelled, per_prompt=6, seed=1)
    others = [_code(_function(f"xs[{k}]"), 4 * (k % 2), prompt="q") for k in range(4)]
    assert mine_pairs(others + labelled, per_prompt=6, seed=1)[-6:] == alone
    assert mine_pairs(labelled, per_prompt=6, seed=2) != alone


_PROGRAMS = [
    "def f(xs):\n    return sorted(x * 2 for x in xs if x > 5)  # kept",
    "def f(xs):\n    return len([abs(x) for x in xs if x % 3 == 0])",
    (
        "def f(n, k):\n    total = 0\n    for i in range(1, n):\n"
        "        if i % 2 == 0 and i != k:\n"
        "            total += i\n    return total if total else -1\n"
    ),
    "n = int(input())\nwhile n > 1:\n    print('n', f'{n:>3}', sep='-', end='')\n    n //= 2\n",
    "def f(s):\n    'Doc.'\n    return s in ('\u00e9\u00e8', 'b') or (not s and (len(s)) < 3)",
    "def f(xs): return [x for x in (xs) if (x > 1) if x < 9], any(x is None for x in xs)",
]


@pytest.mark.parametrize("code", _PROGRAMS)
def test_a_mutant_parses_differs_and_keeps_the_layout(code: str) -> None:
    found = mutants(code, random.Random(0), 10_000)
    assert len(found) > 10
    keys = {normalise(mutant) for mutant in found}
    assert len(keys) == len(found)
    assert normalise(code) not in keys
    for mutant in found:
        ast.parse(mutant)
        assert abs(len(mutant.split("\n")) - len(code.split("\n"))) == 0
        assert ("# kept" in mutant) is ("# kept" in code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if x > 6]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if x >= 5]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if not x > 5]")),
        (_function("sum(x * x for x in xs)"), _function("max(x * x for x in xs)")),
        (_function("sum(x * x for x in xs)"), _function("len([x * x for x in xs])")),
        (_function("sum(x * x for x in xs)"), _function("[x * x for x in xs]")),
        (_function("sum(x * x for x in xs)"), _function("sum(x for x in xs)")),
        (_function("sum(x * x for x in xs)"), _function("sum(x + x for x in xs)")),
        (_function("sorted(xs, reverse=True)"), _function("sorted(xs)")),
        (_function("sorted(xs, reverse=True)"), _function("sorted(xs, reverse=False)")),
        (_function("abs(-xs)"), _function("-xs")),
        (_function("abs(-xs)"), _function("abs(xs)")),
        ("def f(a, b): return a", "def f(a, b): return b"),
        ("def f(n): return range(n)", "def f(n): return range(n + 1)"),
        ("def f(n):\n    if n: return 1", "def f(n):\n    if not n: return 1"),
        ("def f(a, b): return a and b", "def f(a, b): return a or b"),
        ("def f(n):\n    n += 1", "def f(n):\n    n -= 1"),
        ("def f(n): return 1 if n else 2", "def f(n): return 2"),
    ],
)
def test_the_usual_mistakes_are_among_the_mutants(code: str, expected: str) -> None:
    assert expected in mutants(code, random.Random(0), 10_000)


def test_few_mutants_are_of_many_kinds_and_repeat_with_the_seed() -> None:
    code = _PROGRAMS[2]
    assert mutants(code, random.Random(3), 4) == mutants(code, random.Random(3), 4)
    assert mutants(code, random.Random(3), 4) != mutants(code, random.Random(4), 4)
    assert len(mutants(code, random.Random(3), 4)) == 4


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_mutation_or_normalisation(text: str) -> None:
    normalise(text)
    mutants(text, random.Random(0), 3)


def test_problems_are_held_out_never_pairs() -> None:
    pairs = [
        Pair(prompt_id=str(p), question_content="q", code_pos="a", code_neg=str(k))
        for p in range(20)
        for k in range(p % 4 + 1)
    ]
    train, held_out = split_by_prompt(pairs, 0.25, seed=0)
    train_ids, held_ids = {p.prompt_id for p in train}, {p.prompt_id for p in held_out}
    assert not train_ids & held_ids
    assert len(held_ids) == 5
    assert len(train) + len(held_out) == len(pairs)
    assert split_by_prompt(pairs[::-1], 0.25, seed=0)[1][::-1] == held_out
    with pytest.raises(UserError, match="fraction"):
        split_by_prompt(pairs, 1.5, seed=0)


def test_pairs_survive_the_file(tmp_path: Path) -> None:
    pairs = mine_pairs([_code("a = '\u00e9'", 4, step=3), _code("b", 1, step=7)], 3, seed=0)
    write_pairs(tmp_path / "deep" / "pairs.parquet", pairs)
    assert read_pairs(tmp_path / "deep" / "pairs.parquet") == pairs
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pairs.parquet"]
    write_pairs(tmp_path / "none.parquet", [])
    assert read_pairs(tmp_path / "none.parquet") == []


def test_a_file_with_the_three_public_columns_is_read(tmp_path: Path) -> None:
    columns = {
        "question_content": ["q", "q", "r"],
        "code_pos": ["a", "b", "c"],
        "code_neg": ["d", "e", "f"],
        "something_else": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "public.parquet")
    first, second, third = read_pairs(tmp_path / "public.parquet")
    assert (first.code_pos, first.code_neg, first.source) == ("a", "d", "unknown")
    assert first.prompt_id == second.prompt_id != third.prompt_id


def test_a_bad_file_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"question_content": ["q"], "code_pos": ["a"]}), path)
    with pytest.raises(DataError, match=r"bad\.parquet:0:code_neg"):
        read_pairs(path)
    columns = {"question_content": ["q", "q"], "code_pos": ["a", "a"], "code_neg": ["b", None]}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=r"bad\.parquet:2:code_neg"):
        read_pairs(path)
    path.write_text("not parquet")
    with pytest.raises(DataError, match="not a readable parquet"):
        read_pairs(path)
