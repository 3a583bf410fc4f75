"""Problems of minipy are a function of the seed, take their parts from parents, and are planted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from rl.problems.making.filters import Candidate
from rl.problems.making.recombined import Shares, make_candidates
from rl.problems.minipy import FILTERS, MAPS, REDUCES, make_prompts
from rl.problems.prompts import load_prompts, write_prompts
from rl.types import Prompt

pytestmark = pytest.mark.unit

SHARES = Shares(ambiguous=0.2, outside=0.2)
PARENTS = make_prompts("train", 40, 0)


def combination_of(prompt: Prompt) -> list[int]:
    return json.loads(prompt.meta)["combination"]


def made(num: int = 300, seed: int = 0) -> list[Candidate]:
    return make_candidates(PARENTS, num, SHARES, 4, seed)


def test_problems_are_a_function_of_the_seed_and_have_no_tests(tmp_path: Path):
    candidates = made()
    assert candidates == made() != made(seed=1)
    assert made(20) == candidates[:20]
    assert all(c.prompt.tests is None and c.prompt.source == "synthetic" for c in candidates)
    path = tmp_path / "p.parquet"
    write_prompts(path, [c.prompt for c in candidates])
    assert load_prompts(path) == [c.prompt for c in candidates]


def test_a_plain_problem_takes_its_parts_from_its_parents() -> None:
    combinations = {p.id: json.loads(p.meta)["combination"] for p in PARENTS}
    for candidate in made():
        meta = json.loads(candidate.prompt.meta)
        parents = [combinations[name] for name in meta["parents"]]
        if candidate.kind == "plain":
            keep, change, fold = candidate.combination or (-1, -1, -1)
            assert [parents[0][0], parents[1][1], parents[2][2]] == [keep, change, fold]
            phrases = [FILTERS[keep].phrase, MAPS[change].phrase, REDUCES[fold].phrase]
            assert meta["concepts"] == phrases


def test_a_walk_combines_what_occurs_together_and_takes_it_from_its_parents() -> None:
    problems = make_prompts("train", 400, 0)
    one = next(p for p in problems if combination_of(p)[:2] == [0, 0])
    other = next(p for p in problems if combination_of(p)[:2] == [1, 1])
    parents = 20 * [one] + 20 * [other]
    shares = Shares(ambiguous=0, outside=0)
    apart = {}
    for way in ("walk", "uniform"):
        made = make_candidates(parents, 400, shares, 1, 0, combine=way)
        assert made == make_candidates(parents, 400, shares, 1, 0, combine=way)
        parts = [candidate.combination or (-1, -1, -1) for candidate in made]
        apart[way] = sum(keep != change for keep, change, _ in parts) / len(parts)
        for candidate, (keep, change, fold) in zip(made, parts, strict=True):
            names = json.loads(candidate.prompt.meta)["parents"]
            held = [combination_of(one if name == one.id else other) for name in names]
            assert [held[0][0], held[1][1], held[2][2]] == [keep, change, fold]
    assert apart["uniform"] == pytest.approx(0.5, abs=0.1)
    assert 0 < apart["walk"] < 0.2  # no problem has them together, so by epsilon alone


def test_planted_problems_come_in_their_shares_and_say_so() -> None:
    candidates = made(1000)
    counts = Counter(c.kind for c in candidates)
    assert counts["ambiguous"] == pytest.approx(200, abs=40)
    assert counts["outside"] == pytest.approx(200, abs=40)
    grammar = {p.question for p in make_prompts("train", 4000, 0)}
    for candidate in candidates:
        assert json.loads(candidate.prompt.meta)["planted"] == candidate.kind
        if candidate.kind != "plain":
            assert candidate.combination is None
            assert candidate.prompt.question not in grammar
