"""What the driver costs as a step grows, beside the bytes of its completions."""

from __future__ import annotations

from collections.abc import Sequence

from actors.jobs.growth import CHARS_PER_TOKEN, NUM_TOKENS, DriverCost, driver_costs
from conf.schema import Config
from launch.benches.timing import spread
from rl.base.console import Console

_MIB = 1 << 20
_BYTES_PER_TOKEN = 8 + CHARS_PER_TOKEN  # id, log-prob and text
Row = tuple[str, str, str]


def measure_growth(cfg: Config, num_repeats: int, sizes: Sequence[int]) -> None:
    """Print what a step costs the driver, for steps of so many completions."""
    costs = driver_costs(cfg, num_repeats, sizes)
    rows = [row for size, found in costs.items() for row in _rows(size, found)]
    title = f"the driver, completions of {NUM_TOKENS:,} tokens, actors that answer at once"
    Console().table(title, rows)


def _rows(num_completions: int, costs: Sequence[DriverCost]) -> list[Row]:
    per_ms = [1000 * cost.cpu_s / num_completions for cost in costs]
    batch_mib = num_completions * NUM_TOKENS * _BYTES_PER_TOKEN / _MIB
    about = f"of one completion, {num_completions:,} in a step"
    return [
        (f"CPU, {num_completions:,}", spread(per_ms, "ms"), about),
        ("step", spread([cost.wall_s for cost in costs]), "wall clock"),
        ("memory", spread([c.memory_bytes / _MIB for c in costs], "MiB"), "after the step"),
        ("batch", f"{batch_mib:.0f} MiB", "tokens, log-probs and text"),
    ]
