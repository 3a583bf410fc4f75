"""Actors that answer at once, without a model: what is left of a step is what the driver does.

Their processes import what they answer with and nothing else, so that many fit on one machine.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import psutil

from reward.judges.judge import Answers, Judged
from rl.types import (
    Ask,
    Completion,
    Extraction,
    Finish,
    JudgeKind,
    PromptGroup,
    Reason,
    Score,
    UpdateReport,
)

CHARS_PER_TOKEN = 4
PROMPT_TOKENS = 512


class _Process:
    """What every simulated actor that has a process of its own can say."""

    def memory_bytes(self) -> int:
        """Memory that no other process shares."""
        return psutil.Process().memory_full_info().uss


class SimulatedEngine(_Process):
    """Samples completions of one length without a model."""

    def __init__(self, name: str, num_tokens: int) -> None:
        self._name = name
        self._num_tokens = num_tokens

    async def ready(self) -> str:
        """Answer at once."""
        return self._name

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Yield random groups."""
        rng = np.random.default_rng(step)
        for ask in asks:
            completions = tuple(
                Completion(
                    prompt_id=ask.prompt.id,
                    sample_idx=index,
                    text="x" * (self._num_tokens * CHARS_PER_TOKEN),
                    token_ids=rng.integers(0, 150_000, self._num_tokens, np.int32),
                    rollout_logprobs=rng.random(self._num_tokens, np.float32),
                    finish=Finish.STOP,
                    policy_version=step - 1,
                )
                for index in range(ask.sampling.group_size)
            )
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=np.arange(PROMPT_TOKENS, dtype=np.int32),
                completions_G=completions,
                engine=self._name,
                finished_s=time.time(),
            )


class SimulatedShard(_Process):
    """Scores answers by their place in the group."""

    def __init__(self, name: str) -> None:
        self._name = name

    def ready(self) -> str:
        """Answer at once."""
        return self._name

    def judge(
        self, bundle: Sequence[Answers], earlier_codes: Sequence[str] = ()
    ) -> tuple[list[Judged], float]:
        """Judge each answer in no time."""
        del earlier_codes
        return [_judged(len(answers.texts_G)) for answers in bundle], time.time()


def _judged(num: int) -> Judged:
    return Judged(
        extractions_G=(Extraction(reason=Reason.OK, code="pass"),) * num,
        scores_G=tuple(Score(value=float(index)) for index in range(num)),
        rewards_G=np.arange(num, dtype=np.float32),
        judge=JudgeKind.RM,
        num_executed=0,
    )


class SimulatedRank:
    """Takes its microbatches and does nothing with them."""

    def update(self, *_: Any) -> UpdateReport:  # noqa: ANN401 - what a rank is given
        """Report an optimizer step."""
        return UpdateReport(metrics={"policy/loss": 0.0}, lr=1e-6)
