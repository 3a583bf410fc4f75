"""Steps of the quickstart on a fleet, one at a time, for benches."""

from __future__ import annotations

from actors.groups.fleet import FleetSpec, RayFleet, policy_spec
from actors.plan.problems import load_problems
from actors.stages.recipes import make_recipe
from actors.stages.rl_run import training_sampling
from conf.schema import Config
from rl.problems.prompts import PromptSampler
from rl.step import Batch, collect, learn
from rl.types import StepReport

NUM_UPDATES = 1000  # of the learning rate's schedule, which is constant


def fleet_spec(cfg: Config) -> FleetSpec:
    """All groups of actors of a run."""
    return FleetSpec(rollout_model=cfg.model.path, reward=True, train=policy_spec(cfg, NUM_UPDATES))


class Steps:
    """The steps of a run, on its problems in their order."""

    def __init__(self, cfg: Config, fleet: RayFleet) -> None:
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
        self.recipe = make_recipe(cfg, sampling)
        self._algorithm = cfg.algorithm
        self.problems, _ = load_problems(cfg.data, cfg.seed)
        self.number = 0  # of the step that was taken last
        self._fleet = fleet
        self._sampler = PromptSampler(self.problems, cfg.seed)

    async def collect(self) -> Batch:
        """The groups of the next step."""
        self.number += 1
        problems = self._sampler.take(self._algorithm.prompts_per_step, self.number)
        return await collect(self.number, self._fleet, self.recipe, problems, self.recipe.start())

    async def run(self) -> tuple[Batch, StepReport]:
        """The next step as a whole: sampled, judged, learned, published."""
        batch = await self.collect()
        on_policy = self._algorithm.max_staleness == 0
        return batch, await learn(self.number, batch, self._fleet, on_policy=on_policy)
