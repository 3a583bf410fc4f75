"""Replay: programs of earlier steps, learned from again.

What is kept of a program is enough to learn from it under any later policy: its tokens and the
log-probs that they were sampled with, whose ratio to those of the trained policy is the importance
weight of the update (`rl.terms.mismatch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from rl.types import (
    Ask,
    Completion,
    Extraction,
    Finish,
    JudgedGroup,
    JudgeKind,
    Message,
    Prompt,
    PromptGroup,
    Reason,
    SamplingConfig,
    Score,
)

NormalForm = Callable[[str], str]  # equal for programs that count as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One answer of an earlier step, in plain JSON values."""

    step: int
    problem: str  # its id
    question: str
    form: str  # digest of the question and of the program's normal form
    judge: str
    reward: float
    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    policy_version: int
    support: list[list[int]] | None = None

    def group(self) -> JudgedGroup:
        """A group of this answer alone, as it was sampled and judged."""
        messages = (Message("user", self.question),)
        prompt = Prompt(id=self.problem, messages=messages)
        sampling = SamplingConfig(group_size=1, max_tokens=max(1, len(self.tokens)))
        support = None if self.support is None else np.array(self.support, np.int32)
        completion = Completion(
            prompt_id=self.problem,
            sample_idx=0,
            text="",
            token_ids=np.array(self.tokens, np.int32),
            rollout_logprobs=np.array(self.logprobs, np.float32),
            finish=Finish.STOP,
            policy_version=self.policy_version,
            support_TK=support,
        )
        return JudgedGroup(
            group=PromptGroup(
                ask=Ask.code(prompt, sampling),
                prompt_token_ids=np.array(self.prompt, np.int32),
                completions_G=(completion,),
                engine="",
                finished_s=0.0,
            ),
            extractions_G=(Extraction(reason=Reason.OK),),
            scores_G=(Score(value=None),),
            rewards_G=np.array([self.reward], np.float32),
            judge=JudgeKind(self.judge),
            actor="",
            scored_s=0.0,
        )


def kept_of(step: int, judged: JudgedGroup, normal_form: NormalForm) -> list[Kept]:
    """The answers of a group that have a program and are learned from."""
    group = judged.group
    answers = zip(group.completions_G, judged.extractions_G, judged.rewards_G, strict=True)
    return [
        Kept(
            step=step,
            problem=group.prompt.id,
            question=group.prompt.question,
            form=_digest(group.prompt.question, normal_form(extraction.code)),
            judge=str(judged.judge),
            reward=float(reward),
            prompt=_integers(group.prompt_token_ids),
            tokens=_integers(completion.token_ids),
            logprobs=[float(logprob) for logprob in completion.rollout_logprobs],
            policy_version=completion.policy_version,
            support=None
            if completion.support_TK is None
            else [_integers(row) for row in completion.support_TK],
        )
        for (completion, extraction, reward), taught in zip(answers, judged.taught_G, strict=True)
        if taught and extraction.valid
    ]


def merged(old: Sequence[Kept], new: Sequence[Kept], *, distinct: bool, size: int) -> list[Kept]:
    """The newest `size` of both; with `distinct` the newest of each form alone."""
    every = [*old, *new]
    if distinct:
        newest = {one.form: index for index, one in enumerate(every)}
        every = [one for index, one in enumerate(every) if newest[one.form] == index]
    return every[-size:]


def _digest(question: str, form: str) -> str:
    return blake2b(f"{question}\0{form}".encode(errors="replace"), digest_size=8).hexdigest()


def _integers(tokens: Any) -> list[int]:  # noqa: ANN401 - an array of any integers
    return [int(token) for token in tokens]
