"""Updates with shared prefixes beside updates without, on the same batch and the same ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.stages.recipes import policy_objective
from conf.schema import Config, SharePrefix
from launch.benches.steps.quickstart import NUM_UPDATES, Steps, fleet_spec
from launch.benches.timing import Timing, ratio, spread, timed
from launch.benches.tiny_models import make_tiny
from rl.base.console import Console
from rl.loss import Objective
from rl.packing import build_minibatch
from rl.types import Sample

_PROMPT_TOKENS, _COMPLETIONS, _COMPLETION_TOKENS = 2048, 16, 128  # of the long case
Row = tuple[str, str, str]


def measure_update(cfg: Config, num_repeats: int) -> None:
    """Print what an update of the quickstart takes, and one of a long prompt."""
    with session(cfg.ray, "bench-update") as run:
        rows = run(_quickstart(cfg, num_repeats))
        with TemporaryDirectory(prefix="bench-") as folder:
            make_tiny("Qwen3", Path(folder), fields={"max_position_embeddings": 4096})
            rows += run(_long(cfg, Path(folder), num_repeats))
    Console().table("update: shared prefixes beside rows without", rows)


async def _quickstart(cfg: Config, num_repeats: int) -> list[Row]:
    """Groups that the quickstart's policy samples and its reward model scores."""
    async with start_fleet(cfg, fleet_spec(cfg), "bench-update") as fleet:
        steps = Steps(cfg, fleet)
        samples = (await steps.collect()).lesson.updates[0].samples
        return await _both("quickstart", fleet, samples, policy_objective(cfg), num_repeats)


async def _long(cfg: Config, model: Path, num_repeats: int) -> list[Row]:
    """One prompt of many tokens with random completions, on a small random Qwen3."""
    tokens = _PROMPT_TOKENS + _COMPLETION_TOKENS
    cfg = replace(
        cfg,
        model=replace(cfg.model, path=str(model)),
        policy=replace(cfg.policy, microbatch_tokens=_COMPLETIONS * tokens, row_tokens=0),
    )
    rng = np.random.default_rng(0)
    prompt = rng.integers(5, 400, _PROMPT_TOKENS).astype(np.int32)
    samples = [
        Sample(
            prompt_id="long",
            sample_idx=index,
            token_ids=np.concatenate([prompt, own.astype(np.int32)]),
            num_prompt_tokens=_PROMPT_TOKENS,
            rollout_logprobs=np.full(_COMPLETION_TOKENS, -6.0, np.float32),
            advantage=float(rng.normal()),
            policy_version=0,
        )
        for index, own in enumerate(rng.integers(5, 400, (_COMPLETIONS, _COMPLETION_TOKENS)))
    ]
    specs = FleetSpec(train=policy_spec(cfg, NUM_UPDATES))
    async with start_fleet(cfg, specs, "bench-update") as fleet:
        return await _both("long prompt", fleet, samples, policy_objective(cfg), num_repeats)


async def _both(
    name: str,
    fleet: RayFleet,
    samples: Sequence[Sample],
    objective: Objective,
    num_repeats: int,
) -> list[Row]:
    """Updates of both kinds in turns; the first of each warms up."""
    found: dict[SharePrefix, list[Timing]] = {"off": [], "on": []}
    tokens: dict[SharePrefix, int] = {}
    for _ in range(num_repeats + 1):
        for share, timings in found.items():
            packing = replace(fleet.policy.packing, share_prefix=share)
            minibatch = build_minibatch(samples, packing)
            tokens[share] = minibatch.num_tokens
            timings.append((await timed(fleet.policy.update(minibatch, None, objective)))[1])
    wall = {share: [t.wall_s for t in timings[1:]] for share, timings in found.items()}
    cpu = {share: [t.cpu_s for t in timings[1:]] for share, timings in found.items()}
    return [
        (name, "", f"{len(samples)} samples"),
        ("- rows", spread(wall["off"]), f"{tokens['off']} tokens, CPU {spread(cpu['off'])}"),
        ("- trees", spread(wall["on"]), f"{tokens['on']} tokens, CPU {spread(cpu['on'])}"),
        ("- ratio", ratio(wall["on"], wall["off"]), f"CPU {ratio(cpu['on'], cpu['off'])}"),
    ]
