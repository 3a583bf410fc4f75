"""One fleet of real engines for most of the tier, and one Ray for commands: a start takes long."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

from actors.cluster.cluster import cluster
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.stages.recipes import make_recipe
from actors.stages.rl_run import training_sampling
from conf.schema import Config
from launch.common.compose import compose_config
from rl.loop import AfterStep, LoopConfig, run_loop
from rl.problems.prompts import PromptSampler
from rl.recipes.recipe import History, Recipe
from rl.types import Prompt
from tests.system.heads import ray_head

POLICY = Path(__file__).resolve().parents[2] / "assets/minipy/policy"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two files go on at once, but what shares the fleet stays in one process."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            fixtures = set(getattr(item, "fixturenames", ()))
            group = "fleet" if fixtures & {"live", "ray_cluster"} else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


@dataclass(frozen=True)
class LiveFleet:
    """A running fleet, its configuration, and the event loop that it lives in."""

    cfg: Config
    fleet: RayFleet
    loop: asyncio.AbstractEventLoop
    thousands: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fresh_step(self) -> int:
        """A step to begin at: versions only ever grow on the engines, which tests share."""
        first = 1000 * next(self.thousands)
        self.wait(self.fleet.policy.publish(first - 1))
        return first

    @property
    def recipe(self) -> Recipe:
        """The recipe of the quickstart."""
        cfg = self.cfg
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
        return make_recipe(cfg, sampling)

    def take_steps(
        self,
        problems: Sequence[Prompt],
        num_steps: int,
        after: AfterStep,
        *,
        first: int,
        max_staleness: int = 0,
        prompts_per_step: int | None = None,
    ) -> Coroutine[Any, Any, int]:
        """The loop of a run over `num_steps` steps, from step `first` on."""
        return run_loop(
            self.fleet,
            PromptSampler(problems, 0),
            self.recipe,
            LoopConfig(
                num_steps=first + num_steps - 1,
                prompts_per_step=prompts_per_step or self.cfg.algorithm.prompts_per_step,
                max_staleness=max_staleness,
                first_step=first,
            ),
            history=History({first - 1: {}}, max_staleness),
            after=after,
        )

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the fleet's loop."""
        return self.loop.run_until_complete(coroutine)


@pytest.fixture(scope="session")
def tiny_reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised sequence classifier."""
    directory = tmp_path_factory.mktemp("rm")
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    config = Qwen3Config.from_pretrained(POLICY)
    config.num_labels = 1
    config.dtype = torch.float32
    torch.manual_seed(1)
    model = Qwen3ForSequenceClassification(config)
    with torch.no_grad():
        model.score.weight.normal_(std=0.1)  # scores then spread over about one unit
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster."""
    with cluster(compose_config(["experiment=quickstart"]).ray, "system-tests"):
        yield


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[dict[str, str]]:
    """The environment of commands that join one cluster, which has no dashboard."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["RAY_AUTH_MODE"] = "disabled"
    with ray_head(env, "--include-dashboard=false") as address:
        yield env | {"RAY_ADDRESS": address}


@pytest.fixture(scope="session")
def live(ray_cluster: None, tiny_reward_model: Path) -> Iterator[LiveFleet]:
    """The quickstart's fleet, with a random reward model: 1 rollout, 2 shards, 2 policy ranks."""
    cfg = compose_config(
        [
            "experiment=quickstart",
            f"model.path={POLICY}",
            f"reward.model={tiny_reward_model}",
            "policy.lr=1e-3",
            "algorithm.prompts_per_step=4",
            "algorithm.group_size=4",
            "reward.shards=2",
        ]
    )
    specs = FleetSpec(
        rollout_model=cfg.model.path,
        reward=True,
        train=policy_spec(cfg, total_steps=100),
    )
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    fleet = loop.run_until_complete(
        stack.enter_async_context(start_fleet(cfg, specs, "system-tests"))
    )
    yield LiveFleet(cfg, fleet, loop)
    loop.run_until_complete(stack.aclose())
    loop.close()
