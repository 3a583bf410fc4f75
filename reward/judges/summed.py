"""Sum of several judges: a weighted mean of opinions, with what each one said kept apart.

A component is a judge like any other, or measures the text of an answer. All are asked at once, and
what they say is put together in the order of the configuration, so that no timing enters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from conf.schema import LengthConfig
from reward.code.extract import ExtractConfig, extract
from reward.judges.judge import Judge, Judged
from rl.lessons.disagreement import penalty
from rl.types import Extraction, FloatArray, JudgeKind, Part, Prompt, Score

Measure = Callable[[str, ExtractConfig], float]  # of the text of an answer to a problem


@dataclass(frozen=True, slots=True)
class Component:
    """A judge of a sum, and what it counts."""

    judge: Judge
    weight: float


class MeasureJudge:
    """Judges answers by their text alone, those without a program too."""

    def __init__(self, measure: Measure, extract_cfg: ExtractConfig) -> None:
        self._measure = measure
        self._extract_cfg = extract_cfg

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Measure the completions of one prompt."""
        cfg = self._extract_cfg.of(prompt)
        values_G = [self._measure(text, cfg) for text in texts_G]
        return Judged(
            extractions_G=tuple(extract(text, cfg) for text in texts_G),
            scores_G=tuple(Score(value=value) for value in values_G),
            rewards_G=np.array(values_G, dtype=np.float32),
            judge=JudgeKind.OWN,
            num_executed=0,
        )


def _length(cfg: LengthConfig) -> Measure:
    """From 0 to 1, in proportion to the characters beyond the first bound.

    >>> measure = _length(LengthConfig(from_chars=2, to_chars=6))
    >>> [measure("x" * num, ExtractConfig()) for num in (1, 2, 4, 9)]
    [0.0, 0.0, 0.5, 1.0]
    """
    low, high = cfg.from_chars, cfg.to_chars
    return lambda text, _: min(1.0, max(0.0, (len(text) - low) / (high - low)))


def _form(_: LengthConfig) -> Measure:
    """1 for exactly one fenced block whose program parses, whatever the run counts as a program."""
    return lambda text, cfg: float(
        extract(text, ExtractConfig(rule="single_block", language=cfg.language)).valid
    )


# By the name of the judge; each reads what it needs.
MEASURES: Mapping[str, Callable[[LengthConfig], Measure]] = {"length": _length, "format": _form}


class SumJudge:
    """Judges by the weighted sum of the rewards of its components, less what they disagree on.

    What counts as a program is the run's own rule. A program's score is its reward; the verdict is
    that of the component which runs tests, if one does.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        extract_cfg: ExtractConfig,
        disagreement_coef: float = 0.0,
    ) -> None:
        self._components = dict(components)
        self._extract_cfg = extract_cfg
        self._disagreement_coef = disagreement_coef

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Judge the completions of one prompt; blocks until the last component has."""
        with ThreadPoolExecutor(len(self._components)) as pool:
            asked = [
                pool.submit(component.judge.judge, prompt, texts_G)
                for component in self._components.values()
            ]
            found = [one.result() for one in asked]
        cfg = self._extract_cfg.of(prompt)
        extractions_G = tuple(extract(text, cfg) for text in texts_G)
        parts = {
            name: Part(
                weight=component.weight,
                scores_G=judged.scores_G,
                rewards_G=judged.rewards_G,
                judge=judged.judge,
            )
            for (name, component), judged in zip(self._components.items(), found, strict=True)
        }
        rewards_G = weighted_sum(parts, self._disagreement_coef)
        return Judged(
            extractions_G=extractions_G,
            scores_G=_scores(extractions_G, rewards_G, parts),
            rewards_G=rewards_G,
            judge=JudgeKind.SUM,
            num_executed=sum(judged.num_executed for judged in found),
            parts=parts,
        )


def weighted_sum(parts: Mapping[str, Part], disagreement_coef: float = 0.0) -> FloatArray:
    """The rewards of a sum, added up in float64 in the order of its components.

    Above 0 the disagreement of its models is taken off (`rl.lessons.disagreement`).
    """
    total_G = sum(part.weight * part.rewards_G.astype(np.float64) for part in parts.values())
    if disagreement_coef > 0:
        total_G = total_G - penalty(parts, disagreement_coef)
    return np.asarray(total_G, dtype=np.float32)


def _scores(
    extractions_G: Sequence[Extraction], rewards_G: FloatArray, parts: Mapping[str, Part]
) -> tuple[Score, ...]:
    tested = next((p.scores_G for p in parts.values() if p.judge is JudgeKind.EXECUTION), None)
    return tuple(
        Score(
            value=float(rewards_G[index]) if extraction.valid else None,
            verdict=tested[index].verdict if tested else None,
            num_passed=tested[index].num_passed if tested else None,
            num_tests=tested[index].num_tests if tested else None,
        )
        for index, extraction in enumerate(extractions_G)
    )
