"""Judging a reward model: which texts it has to score, and what the scores say of it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reward.assess.attacks import Attack
from reward.assess.figures import (
    Attacked,
    Figure,
    Listed,
    PairFigures,
    attack_figures,
    list_figures,
    pair_figures,
)
from reward.pairs.pairs import LabelledCode, Pair
from rl.seeds import derive_seed
from rl.types import Score

Text = tuple[str, str]  # problem, program


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedPair:
    """A pair and its programs under one attack; None where the attack has nothing to do."""

    attack: str
    pair: Pair
    pos_after: str | None
    neg_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a reward model is judged by."""

    pairs: tuple[Pair, ...]
    labelled: tuple[LabelledCode, ...]
    attacked: tuple[AttackedPair, ...]

    def texts(self) -> dict[str, tuple[str, ...]]:
        """Return the different programs of each problem that have to be scored."""
        by_question: dict[str, dict[str, None]] = defaultdict(dict)
        for pair in self.pairs:
            by_question[pair.question_content] |= {pair.code_pos: None, pair.code_neg: None}
        for one in self.attacked:
            programs = (one.pos_after, one.neg_after)
            by_question[one.pair.question_content] |= {p: None for p in programs if p is not None}
        for code in self.labelled:
            by_question[code.question][code.code] = None
        return {question: tuple(programs) for question, programs in by_question.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the scores say; None or empty where there was no material for it."""

    pairs: PairFigures | None
    lists: Mapping[str, Figure]
    attacks: Mapping[str, Mapping[str, Figure]]  # attack -> figures
    right_scores: tuple[float, ...]  # of different programs
    wrong_scores: tuple[float, ...]
    num_texts: int
    num_truncated: int


def attack_pairs(
    pairs: Sequence[Pair], attacks: Mapping[str, Attack], num: int, seed: int
) -> list[AttackedPair]:
    """Put up to `num` pairs, drawn by the seed, under every attack."""
    chosen = random.Random(derive_seed(seed, "attacked pairs")).sample(pairs, min(num, len(pairs)))

    def attacked(name: str, attack: Attack, pair: Pair, side: str, code: str) -> str | None:
        identity = (name, pair.question_content, side, code)
        return attack(code, random.Random(derive_seed(seed, "attack", *identity)))

    return [
        AttackedPair(
            attack=name,
            pair=pair,
            pos_after=attacked(name, attack, pair, "right", pair.code_pos),
            neg_after=attacked(name, attack, pair, "wrong", pair.code_neg),
        )
        for name, attack in attacks.items()
        for pair in chosen
    ]


def assess_scores(
    material: Material, scores: Mapping[Text, Score], ks: Sequence[int], seed: int
) -> Assessment:
    """Return the figures; `scores` has every text of `material`."""
    values = {text: float(score.value or 0.0) for text, score in scores.items()}
    labels = _labels(material)
    return Assessment(
        pairs=_pairs(material.pairs, values, seed) if material.pairs else None,
        lists=list_figures(_lists(material.labelled, values), ks, seed),
        attacks=_attacks(material.attacked, values, seed),
        right_scores=tuple(values[text] for text, right in labels.items() if right),
        wrong_scores=tuple(values[text] for text, right in labels.items() if not right),
        num_texts=len(scores),
        num_truncated=sum(score.truncated for score in scores.values()),
    )


def _pairs(pairs: Sequence[Pair], values: Mapping[Text, float], seed: int) -> PairFigures:
    margins = [
        values[p.question_content, p.code_pos] - values[p.question_content, p.code_neg]
        for p in pairs
    ]
    problems, sources = [p.question_content for p in pairs], [p.source for p in pairs]
    found = pair_figures(margins, problems, sources, seed)
    ranked = list_figures(_lists_of_pairs(pairs, values), (), seed)
    areas = {name: ranked[name] for name in ("auc within", "auc pooled") if name in ranked}
    return replace(found, figures={**found.figures, **areas})


def _lists_of_pairs(pairs: Sequence[Pair], values: Mapping[Text, float]) -> list[Listed]:
    """The different programs of each problem: a program of ten pairs counts once."""
    by_question: dict[str, dict[str, bool]] = defaultdict(dict)
    for pair in pairs:
        by_question[pair.question_content] |= {pair.code_pos: True, pair.code_neg: False}
    return [
        _listed(question, [(code, right, float(right)) for code, right in codes.items()], values)
        for question, codes in by_question.items()
    ]


def _pass_rate(code: LabelledCode) -> float:
    """Share of tests passed; where they were not all run, whether they all pass."""
    return float(code.passed) if code.tests_passed is None else code.tests_passed


def _lists(labelled: Sequence[LabelledCode], values: Mapping[Text, float]) -> list[Listed]:
    """All completions of each problem, copies too."""
    by_question: dict[str, list[tuple[str, bool, float]]] = defaultdict(list)
    for code in labelled:
        by_question[code.question].append((code.code, code.passed, _pass_rate(code)))
    return [_listed(question, codes, values) for question, codes in by_question.items()]


def _listed(
    question: str, codes: Sequence[tuple[str, bool, float]], values: Mapping[Text, float]
) -> Listed:
    """One problem's programs, each with whether it is right and its pass rate, and their scores."""
    return Listed(
        problem=question,
        scores=tuple(values[question, code] for code, _, _ in codes),
        pass_rates=tuple(rate for _, _, rate in codes),
        passed=tuple(right for _, right, _ in codes),
    )


def _attacks(
    attacked: Sequence[AttackedPair], values: Mapping[Text, float], seed: int
) -> dict[str, dict[str, Figure]]:
    by_attack: dict[str, list[Attacked]] = defaultdict(list)
    for one in attacked:
        question = one.pair.question_content
        by_attack[one.attack].append(
            Attacked(
                problem=question,
                right=values[question, one.pair.code_pos],
                wrong=values[question, one.pair.code_neg],
                right_after=None if one.pos_after is None else values[question, one.pos_after],
                wrong_after=None if one.neg_after is None else values[question, one.neg_after],
            )
        )
    return {name: attack_figures(rows, seed) for name, rows in by_attack.items()}


def _labels(material: Material) -> dict[Text, bool]:
    """Whether each program as it was written is right; attacked ones are left out."""
    labels = {(code.question, code.code): code.passed for code in material.labelled}
    for pair in material.pairs:
        labels[pair.question_content, pair.code_pos] = True
        labels[pair.question_content, pair.code_neg] = False
    return labels
