"""Judges that ask servers: what they have in common.

Programs are found here, as everywhere, and each different one of a group is asked about once. What
a server says of it becomes a score, or nothing, where its answer cannot be read: that says nothing
of the program, so it earns the mean of what the group's others earn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from conf.errors import NonFiniteError
from conf.schema import ShapingKind
from reward.code.extract import ExtractConfig, extract
from reward.judges.judge import Judged
from reward.judges.shaping import shape_rewards
from rl.types import Extraction, FloatArray, JudgeKind, Prompt, Score


class Scorer(Protocol):
    """Whoever asks a server about the programs of one problem."""

    kind: JudgeKind

    def score(self, prompt: Prompt, codes: Sequence[str]) -> Sequence[float | None]:
        """A score of each different program; None where the answer cannot be read."""
        ...

    def check(self) -> None:
        """Ask every server once, so that what is wrong is known before anything starts.

        Raises UserError.
        """
        ...


class ServedJudge:
    """Judges programs by the scores of a server."""

    def __init__(self, scorer: Scorer, extract_cfg: ExtractConfig, shaping: ShapingKind) -> None:
        self._scorer = scorer
        self._extract_cfg = extract_cfg
        self._shaping: ShapingKind = shaping

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Judge the completions of one prompt; blocks until the servers have answered."""
        cfg = self._extract_cfg.of(prompt)
        extractions_G = tuple(extract(text, cfg) for text in texts_G)
        codes = list(dict.fromkeys(e.code for e in extractions_G if e.valid))
        found = self._scorer.score(prompt, codes) if codes else ()
        scores = dict(zip(codes, found, strict=True))
        for score in found:
            if score is not None and not np.isfinite(score):
                raise NonFiniteError(f"reward.url: a server gave {score} for prompt {prompt.id}")
        return Judged(
            extractions_G=extractions_G,
            scores_G=_scores(extractions_G, scores),
            rewards_G=rewards(extractions_G, scores, self._shaping),
            judge=self._scorer.kind,
            num_executed=0,
        )


def _scores(
    extractions_G: Sequence[Extraction], scores: dict[str, float | None]
) -> tuple[Score, ...]:
    """Each program's; a repeated one has that of the first."""
    seen: set[str] = set()
    found: list[Score] = []
    for extraction in extractions_G:
        value = scores[extraction.code] if extraction.valid else None
        found.append(Score(value=value, reused=value is not None and extraction.code in seen))
        seen.add(extraction.code)
    return tuple(found)


def rewards(
    extractions_G: Sequence[Extraction], scores: dict[str, float | None], shaping: ShapingKind
) -> FloatArray:
    """Shaped scores; what was not read earns the mean of what was, 0 where nothing was."""
    values_G = [scores[e.code] if e.valid else None for e in extractions_G]
    read = [value for value in values_G if value is not None]
    middle = float(np.mean(read)) if read else 0.0
    filled_G = [
        middle if extraction.valid and value is None else value
        for extraction, value in zip(extractions_G, values_G, strict=True)
    ]
    return shape_rewards(filled_G, shaping)
