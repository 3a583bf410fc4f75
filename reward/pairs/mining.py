"""Mine preference pairs: of the programs of one problem, which right one meets which wrong one.

The paper labels rollouts of a whole RL trajectory by execution and pairs them within a problem
(CodeScaler, arXiv 2602.17684, on CodeScalerPair-51K). What it does not say is reconstructed here:
duplicates are removed by normalised syntax tree, pairs are spread over steps and over programs, and
half of them prefer the near miss. `reward.pairs.near_miss` makes more near misses and executes
them.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from conf.commands.mine_pairs import PairRule
from conf.errors import DataError
from reward.code.normal_form import normalise, num_other_words, words_of
from reward.pairs.pairs import LabelledCode, Pair, pair_of
from rl.seeds import derive_seed

_MAX_CODES = 32  # positives, and negatives, of one problem that mining looks at

# AceCoder (arXiv 2502.01718, section 3.2): the chosen program passes more than 0.8 of the tests and
# 0.4 more than the rejected one, which passes some: a program that passes none is often just noise.
_ACECODER_CHOSEN = 0.8
_ACECODER_GAP = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningConfig:
    """How pairs are chosen.

    `all_pass` (paper): the chosen program passes every test, the rejected one fails any.
    `acecoder`: by the shares of tests passed, see `_ACECODER_CHOSEN`.
    """

    per_prompt: int  # pairs of one problem at most
    seed: int
    near_miss: bool = True  # every second pair takes the wrong program that is nearest
    rule: PairRule = "all_pass"


@dataclass(frozen=True, slots=True)
class _Candidate:
    code: LabelledCode
    words: Counter[str]

    @property
    def share_passed(self) -> float:
        return self.code.tests_passed or 0.0


def mine_pairs(labelled: Sequence[LabelledCode], cfg: MiningConfig) -> list[Pair]:
    """Return the pairs of all problems, see `mine_problem`; problems in order of appearance."""
    by_prompt: dict[str, list[LabelledCode]] = defaultdict(list)
    for code in labelled:
        by_prompt[code.prompt_id].append(code)
    return [pair for codes in by_prompt.values() for pair in mine_problem(codes, cfg)]


def mine_problem(codes: Sequence[LabelledCode], cfg: MiningConfig) -> list[Pair]:
    """Return up to `cfg.per_prompt` pairs of one problem, if it has right and wrong programs.

    Equal programs (`normalise`) count once, and not at all when execution did not agree on them.
    The programs used least come first, taken from all steps in turn; with `cfg.near_miss`, every
    second pair takes the wrong program that passes most tests and lies closest to the right one.

    Raises DataError when the rule needs shares of tests that are not known.
    """
    if not codes:
        return []
    rng = random.Random(derive_seed(cfg.seed, "pairs", codes[0].prompt_id))
    distinct = _distinct(codes)
    rights = _spread([c for c in distinct if _may_be_chosen(c.code, cfg)], rng)[:_MAX_CODES]
    wrongs = _spread([c for c in distinct if _may_be_rejected(c.code, cfg)], rng)[:_MAX_CODES]
    nearness = {
        (r, w): (
            -wrong.share_passed,
            num_other_words(right.words, wrong.words),
        )
        for r, right in enumerate(rights)
        for w, wrong in enumerate(wrongs)
        if cfg.rule == "all_pass" or right.share_passed > wrong.share_passed + _ACECODER_GAP
    }
    used_right, used_wrong = [0] * len(rights), [0] * len(wrongs)
    pairs: list[Pair] = []
    while nearness and len(pairs) < cfg.per_prompt:
        prefer_near = cfg.near_miss and len(pairs) % 2 == 0

        def cost(pair: tuple[int, int], prefer_near: bool = prefer_near) -> tuple[float, ...]:
            wear = used_right[pair[0]] + used_wrong[pair[1]]
            return (wear, *nearness[pair]) if prefer_near else (wear, sum(pair), pair[0])

        right, wrong = min(nearness, key=cost)
        del nearness[right, wrong]
        used_right[right] += 1
        used_wrong[wrong] += 1
        pairs.append(pair_of(rights[right].code, wrongs[wrong].code))
    return pairs


def _may_be_chosen(code: LabelledCode, cfg: MiningConfig) -> bool:
    return code.passed if cfg.rule == "all_pass" else _known_share(code) > _ACECODER_CHOSEN


def _may_be_rejected(code: LabelledCode, cfg: MiningConfig) -> bool:
    return not code.passed if cfg.rule == "all_pass" else _known_share(code) > 0.0


def _known_share(code: LabelledCode) -> float:
    if code.tests_passed is None:
        raise DataError(
            f"{code.run or 'rollouts'}:{code.prompt_id}:num_passed: rule=acecoder needs the share "
            "of tests that each program passes (None); collect rollouts with "
            "reward.early_stop=false, or take rule=all_pass"
        )
    return code.tests_passed


def _distinct(codes: Sequence[LabelledCode]) -> list[_Candidate]:
    """Return one candidate for each different program whose labels agree."""
    candidates: dict[str, _Candidate] = {}
    disputed: set[str] = set()
    for code in codes:
        key = normalise(code.code)
        known = candidates.setdefault(key, _Candidate(code, words_of(key)))
        if known.code.passed is not code.passed:
            disputed.add(key)
    return [candidate for key, candidate in candidates.items() if key not in disputed]


def _spread(candidates: Sequence[_Candidate], rng: random.Random) -> list[_Candidate]:
    """Return the candidates in random order, taking from every step before any step's second."""
    by_step: dict[int, list[_Candidate]] = defaultdict(list)
    for candidate in rng.sample(candidates, len(candidates)):
        by_step[candidate.code.step].append(candidate)
    turns = zip_longest(*by_step.values())
    return [candidate for turn in turns for candidate in turn if candidate is not None]
