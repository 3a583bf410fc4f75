"""Steps of the quickstart on a fleet, one at a time, for benches."""

from __future__ import annotations

from actors.groups.fleet import FleetSpec, RayFleet, policy_spec
from actors.plan.problems import load_problems
from actors.stages.rl_run import step_config, training_sampling
from conf.schema import Config
from rl.advantage import batch_advantages
from rl.problems.prompts import PromptSampler
from rl.step import Batch, build_samples, collect, learn
from rl.types import Sample

NUM_UPDATES = 1000  # of the learning rate's schedule, which is constant


def fleet_spec(cfg: Config) -> FleetSpec:
    """All groups of actors of a run."""
    return FleetSpec(rollout_model=cfg.model.path, reward=True, train=policy_spec(cfg, NUM_UPDATES))


class Steps:
    """The steps of a run, on its problems in their order."""

    def __init__(self, cfg: Config, fleet: RayFleet) -> None:
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
        self.cfg = step_config(cfg.algorithm, sampling)
        self.problems, _ = load_problems(cfg.data, cfg.seed)
        self.number = 0  # of the step that was taken last
        self._fleet = fleet
        self._sampler = PromptSampler(self.problems, cfg.seed)

    async def collect(self) -> Batch:
        """The groups of the next step."""
        self.number += 1
        prompts = self._sampler.take(self.cfg.prompts_per_step, self.number)
        return await collect(self.number, self._fleet, prompts, self.cfg)

    def samples(self, batch: Batch) -> list[Sample]:
        """What the policy learns from a batch."""
        advantages = batch_advantages(batch.groups_P, self.cfg.advantage)
        return build_samples(batch.groups_P, advantages, self.cfg.keep_zero_advantage)

    async def run(self) -> Batch:
        """The next step as a whole: sampled, judged, learned, published."""
        batch = await self.collect()
        await learn(self.number, batch, self._fleet, self.cfg)
        return batch
