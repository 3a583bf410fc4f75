"""A shard without an engine: it scores a text by its length, and fails when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from actors.serve.queue import Group
from conf.errors import EngineError, NonFiniteError, ProjectError
from reward.judges.judge import Judged
from rl.types import Extraction, JudgeKind, Message, Prompt, Reason, Score


def group(*texts: str, question: str = "q") -> Group:
    return Prompt(id=question, messages=(Message("user", question),)), texts


class FakeShard:
    """Judges when `open` is set; `dead` fails every call; a text `killer` kills it."""

    def __init__(self, name: str = "reward-0") -> None:
        self.name = name
        self.dead = False
        self.open = asyncio.Event()
        self.open.set()
        self.calls: list[list[str]] = []  # texts of each call

    async def judge_many(self, groups: Sequence[Group]) -> list[Judged | ProjectError]:
        texts = [text for _, texts_G in groups for text in texts_G]
        self.calls.append(texts)
        if "killer" in texts:
            self.dead = True
        self._check()
        await self.open.wait()
        self._check()
        return [self._judge(texts_G) for _, texts_G in groups]

    async def check_health(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.dead:
            raise EngineError(f"{self.name} died")

    @staticmethod
    def _judge(texts_G: Sequence[str]) -> Judged | ProjectError:
        if "nan" in texts_G:
            return NonFiniteError("the reward model gave nan")
        if "refused" in texts_G:
            return EngineError("the engine refuses this request")
        values = [float(len(text)) for text in texts_G]
        return Judged(
            extractions_G=tuple(Extraction(reason=Reason.OK, code=text) for text in texts_G),
            scores_G=tuple(Score(value=value) for value in values),
            rewards_G=np.array(values, dtype=np.float32),
            judge=JudgeKind.RM,
            num_executed=0,
        )
