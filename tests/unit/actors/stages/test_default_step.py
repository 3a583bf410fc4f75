"""The default recipe to the number: what a step of the quickstart samples, credits and learns.

Other tests compare a run with itself. This one compares with `default_step.json`: digests of what
numpy computes, and figures of a small model in float64, which libraries may round otherwise. Where
the change is meant, `python -m tests.unit.actors.stages.test_default_step` writes the file anew,
and CHANGELOG.md says that runs of the quickstart are no longer what they were.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.groups.fleet import packing_of
from actors.stages.recipes import make_recipe
from actors.stages.rl_run import training_sampling
from conf.schema import Config
from reward.judges.shaping import shape_rewards
from rl.loss import LossDenominators, MicrobatchTensors, Objective, Outputs
from rl.parcels import Minibatch
from rl.step import collect, learn
from rl.types import (
    Ask,
    Completion,
    Finish,
    FloatArray,
    JudgedGroup,
    Microbatch,
    PromptGroup,
    UpdateReport,
)
from tests.settings import shipped_config
from tests.unit.rl.fakes import (
    Event,
    FakeFleet,
    FakePolicy,
    FakeReward,
    FakeRollout,
    make_judged,
    make_prompts,
)

pytestmark = pytest.mark.unit

PINNED = Path(__file__).with_name("default_step.json")
VOCABULARY = 31
LR = 50.0  # so that ratios of a second minibatch are clipped
OldLogprobs = tuple[tuple[FloatArray, ...], ...] | None


class Rollout(FakeRollout):
    """Completions of different lengths, some of which begin alike and one of which is cut off."""

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        for problem, ask in enumerate(asks):
            completions_G = tuple(
                _completion(ask.prompt.id, problem, index, self.version)
                for index in range(ask.sampling.group_size)
            )
            prompt_ids = np.arange(3 + problem % 4, dtype=np.int32) + problem
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=prompt_ids % VOCABULARY,
                completions_G=completions_G,
                engine="rollout-0",
                finished_s=0.0,
            )
            await asyncio.sleep(0)


def _completion(prompt_id: str, problem: int, index: int, version: int) -> Completion:
    length = 3 + (5 * index + 3 * problem) % 9
    token_ids = (
        7 * np.arange(length) + problem + (index % 3) * (np.arange(length) > 1)
    ) % VOCABULARY
    return Completion(
        prompt_id=prompt_id,
        sample_idx=index,
        text="",
        token_ids=token_ids.astype(np.int32),
        rollout_logprobs=(-2.5 - (token_ids % 16) / 8).astype(np.float32),
        finish=Finish.LENGTH if (problem, index) == (1, 2) else Finish.STOP,
        policy_version=version,
    )


class Reward(FakeReward):
    """Shaped scores of a reward model; `width` says how far they differ, some answers have none."""

    def __init__(self, events: list[Event], cfg: Config, width: float) -> None:
        super().__init__(events)
        self._cfg = cfg
        self._width = width

    def judge_one(self, group: PromptGroup) -> JudgedGroup:
        problem = int(group.prompt.id[1:])
        scores_G = [
            2.0 + self._width * ((3 * index * (problem % 5) + problem) % 8 - 4) / 4
            for index in range(len(group.completions_G))
        ]
        given_G = [
            None if self._width > 1 and (index + problem) % 11 == 10 else score
            for index, score in enumerate(scores_G)
        ]
        rewards_G = shape_rewards(given_G, self._cfg.reward.shaping)
        return make_judged(group, rewards_G.tolist())


class Policy(FakePolicy):
    """A table of logits by token, float64, that learns by plain gradient descent."""

    def __init__(self, events: list[Event], rollout: FakeRollout, cfg: Config) -> None:
        super().__init__(events, rollout)
        self.packing = packing_of(cfg.policy, cfg.policy.ranks)
        place = torch.arange(VOCABULARY**2, dtype=torch.float64).reshape(VOCABULARY, VOCABULARY)
        self.table = torch.sin(place).requires_grad_()
        self.reference = torch.sin(place + 0.1)
        self.learned: list[dict[str, float]] = []

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        return tuple(
            tuple(self._read(self.table, mb).values_M.detach().numpy() for mb in rank)
            for rank in minibatch.microbatches_by_rank
        )

    def _read(self, table: Tensor, mb: Microbatch) -> Outputs:
        tensors = MicrobatchTensors.from_microbatch(mb, "cpu")
        logprobs_MV = table[tensors.token_ids_RL.flatten()[tensors.place_M]].log_softmax(-1)
        values_M = logprobs_MV.gather(-1, tensors.target_ids_M[:, None])[:, 0]
        return Outputs(values_M, -(logprobs_MV.exp() * logprobs_MV).sum(-1))

    async def update(
        self, minibatch: Minibatch, old_logprobs: OldLogprobs, objective: Objective
    ) -> UpdateReport:
        self.updates.append(minibatch)
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
        sums: dict[str, float] = {}
        for rank, microbatches in enumerate(minibatch.microbatches_by_rank):
            for index, mb in enumerate(microbatches):
                old_M = None if old_logprobs is None else torch.tensor(old_logprobs[rank][index])
                outputs, ref_M = self._read(self.table, mb), self._read(self.reference, mb).values_M
                tensors = MicrobatchTensors.from_microbatch(mb, "cpu")
                loss, metrics = objective(outputs, tensors, old_M, ref_M, norm)
                loss.backward()
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        self.learned.append(sums | self._descend())
        return UpdateReport(metrics=sums, lr=LR)

    def _descend(self) -> dict[str, float]:
        """Take the step; what it was: its length, and its part along a fixed direction."""
        gradient = self.table.grad
        assert gradient is not None
        direction = torch.cos(torch.arange(VOCABULARY**2, dtype=torch.float64)).reshape_as(gradient)
        figures = {
            "gradient/norm": float(gradient.norm()),
            "gradient/along": float((gradient * direction).sum()),
        }
        with torch.no_grad():
            self.table -= LR * gradient
        self.table.grad = None
        return figures


def step_of(width: float, *overrides: str) -> dict[str, Any]:
    """Digests and figures of one step of the quickstart."""
    cfg = shipped_config(["experiment=quickstart", *overrides])
    fleet = FakeFleet()
    fleet.rollout = Rollout(fleet.events)
    fleet.reward = Reward(fleet.events, cfg, width)
    policy = fleet.policy = Policy(fleet.events, fleet.rollout, cfg)
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
    recipe = make_recipe(cfg, sampling)
    prompts = make_prompts(cfg.algorithm.prompts_per_step)

    async def step() -> tuple[Any, Any]:
        batch = await collect(1, fleet, recipe, prompts, {})
        return batch, await learn(1, batch, fleet, on_policy=True)

    batch, _ = asyncio.run(step())
    samples = [sample for update in batch.lesson.updates for sample in update.samples]
    return {
        "digests": {
            "rewards": digest(group.rewards_G for group in batch.groups_P),
            "advantages": digest(batch.lesson.advantages_PG),
            "samples": digest(samples),
            "minibatches": digest(
                mb for one in policy.updates for rank in one.microbatches_by_rank for mb in rank
            ),
        },
        "updates": policy.learned,
    }


def digest(values: Iterable[object]) -> str:
    """Of arrays and of the fields of records, with their shapes and types."""
    found = sha256()
    for part in _parts(values):
        found.update(part)
    return found.hexdigest()[:16]


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield one.name.encode()
            yield from _parts(getattr(value, one.name))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _parts(item)
    else:
        yield repr(value).encode()


CASES: dict[str, tuple[float, tuple[str, ...]]] = {
    "wide": (4.0, ()),
    "narrow": (0.02, ()),  # below the floor of the standard deviation
    "four minibatches": (4.0, ("algorithm.minibatches_per_step=4",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_the_quickstart_is_what_it_was(case: str):
    width, overrides = CASES[case]
    found, pinned = step_of(width, *overrides), json.loads(PINNED.read_text())[case]
    assert found["digests"] == pinned["digests"]
    assert len(found["updates"]) == len(pinned["updates"])
    for own, known in zip(found["updates"], pinned["updates"], strict=True):
        assert own == pytest.approx(known, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("case", "changed", "differs"),
    [
        ("narrow", "algorithm.std_floor=0.06", "advantages"),
        # Above the floor a constant factor cancels.
        ("narrow", "algorithm.advantage_baseline=leave_one_out", "advantages"),
        ("wide", "algorithm.advantage_baseline=batch", "advantages"),
        ("wide", "algorithm.advantage_scale=group_std", "advantages"),
        ("wide", "algorithm.minibatches_per_step=2", "minibatches"),
        ("wide", "policy.ranks=1", "minibatches"),
        ("wide", "reward.shaping=raw", "rewards"),
        ("wide", "algorithm.kl_coef=0.11", None),
        ("wide", "algorithm.tis_cap=1.5", None),
        ("four minibatches", "algorithm.clip_eps_high=0.2", None),
        ("wide", "algorithm.loss_aggregation=sequence_mean", None),
    ],
)
def test_what_a_step_depends_on_is_seen(case: str, changed: str, differs: str | None):
    width, overrides = CASES[case]
    found, pinned = step_of(width, *overrides, changed), json.loads(PINNED.read_text())[case]
    if differs is not None:
        assert found["digests"][differs] != pinned["digests"][differs]
    else:
        pairs = zip(found["updates"], pinned["updates"], strict=True)
        assert any(
            not math.isclose(own["gradient/along"], known["gradient/along"], rel_tol=1e-6)
            for own, known in pairs
        )


if __name__ == "__main__":
    steps = {name: step_of(width, *overrides) for name, (width, overrides) in CASES.items()}
    PINNED.write_text(json.dumps(steps, indent=1) + "\n")
