"""In-process fleets behind the contracts of `rl.interfaces`, with one record of what happened.

Nothing here sleeps: a test holds a prompt, a judgement or an update with an `asyncio.Event` and
reads from `FakeFleet.events` in which order things happened.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rl.advantage import AdvantageConfig
from rl.loss import Objective, PolicyObjective
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.recipes.recipe import Recipe, Setup
from rl.types import (
    Ask,
    BoolArray,
    Completion,
    Evidence,
    Extraction,
    Finish,
    FloatArray,
    JudgedGroup,
    JudgeKind,
    Message,
    Prompt,
    PromptGroup,
    Reason,
    SamplingConfig,
    Score,
    Task,
    UpdateReport,
    Verdict,
)

Event = tuple[str, object]  # for example ("judged", "p3") or ("published", 2)
PROMPT_TOKENS = np.array([1, 2, 3], dtype=np.int32)


def make_prompts(num: int) -> list[Prompt]:
    """Prompts p0, p1, ..."""
    return [Prompt(id=f"p{i}", messages=(Message("user", f"question {i}"),)) for i in range(num)]


def ask_of(prompt: Prompt, size: int) -> Ask:
    """A group of programs."""
    return Ask.code(prompt, SamplingConfig(group_size=size, max_tokens=8))


def make_completion(
    prompt_id: str, index: int, version: int = 0, num_tokens: int = 4
) -> Completion:
    """A completion whose tokens tell its index."""
    return Completion(
        prompt_id=prompt_id,
        sample_idx=index,
        text=f"```python\nprint({index})\n```",
        token_ids=np.full(num_tokens, 10 + index, dtype=np.int32),
        rollout_logprobs=np.full(num_tokens, -0.5, dtype=np.float32),
        finish=Finish.STOP,
        policy_version=version,
    )


def make_group(prompt: Prompt, size: int, version: int = 0) -> PromptGroup:
    """A finished group."""
    return PromptGroup(
        ask=ask_of(prompt, size),
        prompt_token_ids=PROMPT_TOKENS,
        completions_G=tuple(make_completion(prompt.id, i, version) for i in range(size)),
        engine="rollout-0",
        finished_s=time.time(),
    )


def with_support(judged: JudgedGroup) -> JudgedGroup:
    """The group as if each token had been sampled among itself and one other."""
    completions_G = tuple(
        dataclasses.replace(one, support_TK=np.stack([one.token_ids, one.token_ids + 50], axis=1))
        for one in judged.group.completions_G
    )
    group = dataclasses.replace(judged.group, completions_G=completions_G)
    return dataclasses.replace(judged, group=group)


def make_judged(
    group: PromptGroup, rewards: Sequence[float], passed: Sequence[bool | None] | None = None
) -> JudgedGroup:
    """A group of valid completions with these rewards; `passed` where they were executed."""
    verdicts = {None: None, True: Verdict.PASSED, False: Verdict.WRONG_ANSWER}
    return JudgedGroup(
        group=group,
        extractions_G=tuple(Extraction(reason=Reason.OK, code="pass") for _ in rewards),
        scores_G=tuple(
            Score(value=reward, verdict=verdicts[done])
            for reward, done in zip(rewards, passed or [None] * len(rewards), strict=True)
        ),
        rewards_G=np.array(rewards, dtype=np.float32),
        judge=JudgeKind.RM,
        actor="reward-0",
        scored_s=time.time(),
    )


def group_of_tests(problem: Prompt, passed_NM: BoolArray, num_unreadable: int = 0) -> JudgedGroup:
    """Tests of a problem that were run on its programs; the first cannot be read."""
    size = passed_NM.shape[1]
    ask = Ask(
        prompt=dataclasses.replace(problem, id=f"{problem.id}#test"),
        problem=problem,
        sampling=setup().sampling,
        task=Task.TEST,
    )
    group = dataclasses.replace(make_group(ask.prompt, size), ask=ask)
    bad = Extraction(reason=Reason.NO_BLOCK)
    good = Extraction(reason=Reason.OK, code="assert f(1) == 1")
    return JudgedGroup(
        group=group,
        extractions_G=(bad,) * num_unreadable + (good,) * (size - num_unreadable),
        scores_G=(Score(value=None),) * size,
        rewards_G=np.zeros(size, np.float32),
        judge=JudgeKind.MATRIX,
        actor="reward-0",
        scored_s=0.0,
        evidence=Evidence(passed_NM=passed_NM),
    )


def setup(**changes: object) -> Setup:
    """Groups of three programs, one minibatch."""
    values: dict[str, object] = {
        "sampling": SamplingConfig(group_size=3, max_tokens=8),
        "advantage": AdvantageConfig(scale="none", std_floor=0.05),
        "objective": PolicyObjective(),
        "minibatches_per_step": 1,
        "keep_zero_advantage": False,
    }
    return Setup(**{**values, **changes})  # pyright: ignore[reportArgumentType]  # by name


def recipe(**changes: object) -> Recipe:
    """GRPO on programs."""
    return Recipe(setup(**changes))


class FakeRollout:
    """Samples at once, except for held prompts; serves the version that was published last."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self.version = 0
        self.held: dict[str, asyncio.Event] = {}  # by prompt id: generated once it is set
        self.fails_at: tuple[int, Exception] | None = None  # at this step

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Yield the groups of prompts that are free first."""
        self._events.append(("rollout", step))
        if self.fails_at and self.fails_at[0] == step:
            raise self.fails_at[1]
        for ask in sorted(asks, key=lambda ask: ask.prompt.id in self.held):
            prompt = ask.prompt
            if prompt.id in self.held:
                await self.held[prompt.id].wait()
            self._events.append(("generated", prompt.id))
            group = make_group(prompt, ask.sampling.group_size, self.version)
            yield dataclasses.replace(group, ask=ask)
            await asyncio.sleep(0)


class FakeReward:
    """Gives rewards 0, 1, 2, ... within a group, or what the test says."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self.rewards: Mapping[str, Sequence[float]] = {}  # by prompt id
        self.on_judged: Callable[[str], None] = _nothing
        self.earlier: dict[str, int] = {}  # groups judged before the newest ones, by problem
        self.fails_at: tuple[str, Exception] | None = None  # at this prompt

    async def judge(
        self, groups: Sequence[PromptGroup], earlier: Sequence[JudgedGroup] = ()
    ) -> tuple[JudgedGroup, ...]:
        """Judge the groups of a problem."""
        self.earlier[groups[0].ask.problem.id] = len(earlier)
        return tuple(map(self.judge_one, groups))

    def judge_one(self, group: PromptGroup) -> JudgedGroup:
        """Judge one group."""
        prompt_id = group.prompt.id
        if self.fails_at and self.fails_at[0] == prompt_id:
            raise self.fails_at[1]
        self._events.append(("judged", prompt_id))
        self.on_judged(prompt_id)
        default = [float(i) for i in range(len(group.completions_G))]
        return make_judged(group, self.rewards.get(prompt_id, default))


class FakePolicy:
    """Counts what it is asked; an update takes `turns` turns of the event loop."""

    turns = 0

    def __init__(self, events: list[Event], rollout: FakeRollout) -> None:
        self._events = events
        self._rollout = rollout
        self.packing = Packing(num_ranks=2, microbatch_tokens=64)
        self.updates: list[Minibatch] = []
        self.objectives: list[Objective] = []
        self.fails: Exception | None = None

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Those of the rollout."""
        self._events.append(("logprobs", minibatch.num_samples))
        return tuple(
            tuple(mb.rollout_logprobs_M for mb in rank) for rank in minibatch.microbatches_by_rank
        )

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """Loss 1.0 for the first update, 2.0 for the second, ..."""
        self.objectives.append(objective)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        self._events.append(("update", "given" if old_logprobs is not None else "own"))
        self.updates.append(minibatch)
        number = len(self.updates)
        return UpdateReport(metrics={"policy/loss": float(number)}, lr=0.1 * number)

    async def publish(self, policy_version: int) -> None:
        """Every engine serves the version when this returns."""
        self._rollout.version = policy_version
        self._events.append(("published", policy_version))


@dataclass
class FakeFleet:
    """All actors of a run, in one process."""

    events: list[Event] = field(default_factory=list[Event])
    noted: dict[str, float] = field(default_factory=dict[str, float])
    rollout: FakeRollout = field(init=False)
    reward: FakeReward = field(init=False)
    policy: FakePolicy = field(init=False)

    def __post_init__(self) -> None:
        self.rollout = FakeRollout(self.events)
        self.reward = FakeReward(self.events)
        self.policy = FakePolicy(self.events, self.rollout)

    def faults(self) -> dict[str, float]:
        """What was noted since the last call."""
        noted, self.noted = self.noted, {}
        return noted

    def note(self, metric: str, number: int) -> None:
        """Count it."""
        self.noted[metric] = self.noted.get(metric, 0.0) + number

    def subjects(self, what: str) -> list[object]:
        """What happened under this name, in order."""
        return [subject for name, subject in self.events if name == what]


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors inside nested groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _nothing(_: str) -> None:
    """Do nothing after a judgement."""
