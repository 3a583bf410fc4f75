"""Publication of a 135M policy beside a plain copy of the same bytes, and its share of a step.

The model has the shape of SmolLM2-135M and random weights: nothing here depends on their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors import safe_open

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.stages.recipes import policy_objective
from conf.schema import Config
from launch.benches.steps.quickstart import NUM_UPDATES
from launch.benches.timing import Timing, ratio, spread, timed
from launch.benches.tiny_models import make_tiny
from rl.base.console import Console
from rl.packing import build_minibatch
from rl.samples import sample_of
from rl.types import Ask, Message, Prompt, SamplingConfig

SMOLLM2_135M: Mapping[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_PROMPTS, _COMPLETIONS, _TOKENS = 8, 4, 128  # of a step
_MIB = 2**20
Row = tuple[str, str, str]


def measure_publication(cfg: Config, num_repeats: int) -> None:
    """Print what a publication takes beside a copy, and beside the rest of a step."""
    with TemporaryDirectory(prefix="bench-") as folder:
        make_tiny("Llama", Path(folder), fields=SMOLLM2_135M)
        cfg = replace(
            cfg,
            model=replace(cfg.model, path=folder, max_completion_tokens=_TOKENS),
            policy=replace(cfg.policy, microbatch_tokens=320, row_tokens=0),
        )
        with session(cfg.ray, "bench-publication") as run:
            rows = run(_measure(cfg, Path(folder), num_repeats))
    Console().table("publication of a 135M policy", rows)


async def _measure(cfg: Config, model: Path, num_repeats: int) -> list[Row]:
    specs = FleetSpec(rollout_model=str(model), train=policy_spec(cfg, NUM_UPDATES))
    found: dict[str, list[Timing]] = {"publish": [], "copy": []}
    num_bytes = _num_bytes(model)
    source, target = np.ones(num_bytes, np.uint8), np.zeros(num_bytes, np.uint8)
    async with start_fleet(cfg, specs, "bench-publication") as fleet:

        async def copy() -> None:
            np.copyto(target, source)

        _, rest = await timed(_rest(cfg, fleet, 1))  # once: it takes a minute
        for number in range(1, num_repeats + 2):  # the first of each warms up
            found["publish"].append((await timed(fleet.policy.publish(number)))[1])
            found["copy"].append((await timed(copy()))[1])
    wall = {name: [one.wall_s for one in timings[1:]] for name, timings in found.items()}
    cpu = {name: [one.cpu_s for one in timings[1:]] for name, timings in found.items()}
    whole = [rest.wall_s + publish_s for publish_s in wall["publish"]]
    return [
        ("weights", f"{num_bytes / _MIB:.0f} MiB", "float32, each name once"),
        ("publication", spread(wall["publish"]), f"CPU {spread(cpu['publish'])}"),
        ("plain copy", spread(wall["copy"]), "of as many bytes, one core"),
        ("- bandwidth of a copy", ratio(wall["copy"], wall["publish"]), "of the publication"),
        (
            "rest of a step",
            f"{rest.wall_s:.1f} s",
            f"{_PROMPTS} x {_COMPLETIONS} x {_TOKENS} tokens",
        ),
        ("- share of a step", ratio(wall["publish"], whole), ""),
    ]


def _num_bytes(model: Path) -> int:
    with safe_open(model / "model.safetensors", "numpy") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118 - no mapping


async def _rest(cfg: Config, fleet: RayFleet, step: int) -> None:
    """Sampling and an optimizer step."""
    sampling = SamplingConfig(group_size=_COMPLETIONS, max_tokens=_TOKENS)
    asks = [
        Ask.code(
            Prompt(id=f"p{number}", messages=(Message("user", f"Write f number {number}."),)),
            sampling,
        )
        for number in range(_PROMPTS)
    ]
    samples = [
        sample_of(group, position, (-1.0) ** position)
        async for group in fleet.rollout.generate(asks, step)
        for position in range(_COMPLETIONS)
    ]
    minibatch = build_minibatch(samples, fleet.policy.packing)
    await fleet.policy.update(minibatch, None, policy_objective(cfg))
