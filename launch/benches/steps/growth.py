"""What the driver costs as a step grows, beside the bytes of its completions."""

from __future__ import annotations

from collections.abc import Sequence

from actors.simulation.growth import DriverCost, Scale, driver_costs
from actors.simulation.silent import CHARS_PER_TOKEN
from conf.schema import Config
from launch.benches.timing import spread
from rl.base.console import Console

_MIB = 1 << 20
_BYTES_PER_TOKEN = 8 + CHARS_PER_TOKEN  # id, log-prob and text
Row = tuple[str, str, str]


def measure_growth(cfg: Config, num_repeats: int, sizes: Sequence[int], scale: Scale) -> None:
    """Print what a step costs the driver, for steps of so many completions."""
    found = driver_costs(cfg, num_repeats, sizes, scale)
    rows = [row for size, costs in found.costs.items() for row in _rows(size, costs, scale)]
    memory = [num_bytes / _MIB for num_bytes in found.actor_bytes]
    rows += [
        ("start", f"{found.start_s:.1f} s", f"of {len(memory)} engines and shards"),
        ("an actor", spread(memory, "MiB"), f"of its own; {sum(memory) / 1024:.1f} GiB in all"),
    ]
    title = (
        f"the driver, completions of {scale.tokens:,} tokens, {scale.engines} engines and "
        f"{scale.shards} shards that answer at once"
    )
    Console().table(title, rows)


def _rows(num_completions: int, costs: Sequence[DriverCost], scale: Scale) -> list[Row]:
    per_ms = [1000 * cost.cpu_s / num_completions for cost in costs]
    per_s = [num_completions / cost.wall_s for cost in costs]
    batch_mib = num_completions * scale.tokens * _BYTES_PER_TOKEN / _MIB
    about = f"of one completion, {num_completions:,} in a step"
    return [
        (f"CPU, {num_completions:,}", spread(per_ms, "ms"), about),
        ("step", spread([cost.wall_s for cost in costs]), "wall clock"),
        (
            "throughput",
            spread(per_s, "/s"),
            f"completions; {scale.tokens * max(per_s):,.0f} tokens/s",
        ),
        ("an engine", _extremes([n for cost in costs for n in cost.by_engine]), "in a step"),
        ("a shard", _extremes([n for cost in costs for n in cost.by_shard]), "in a step"),
        ("memory", spread([c.memory_bytes / _MIB for c in costs], "MiB"), "after the step"),
        ("batch", f"{batch_mib:.0f} MiB", "tokens, log-probs and text"),
    ]


def _extremes(dealt: Sequence[int]) -> str:
    """How evenly completions were dealt.

    >>> _extremes([16, 48, 32])
    '16 to 48 completions'
    """
    return f"{min(dealt)} to {max(dealt)} completions"
