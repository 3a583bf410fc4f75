"""What only a GPU can show, in parts: `python launch/gpu_check.py`, or `make gpu-check`.

Needs a machine with an NVIDIA GPU and torch; parts whose packages are missing are left out with the
reason, and all of it ends within eight minutes (`budget_s=`). Each part runs in a process of its
own: one that fails loses nothing of the others. Results are written to `output=` as JSON and as a
Markdown table; docs/gpu.md says what each part measures.

`device=cpu` rehearses the parts with small sizes: it proves that they run, and their figures mean
nothing. The exit code is 0 when every part that ran kept its bounds, 1 when one did not, and 2 when
there is no GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from launch.gpu.check import GpuCheckArgs, in_a_process, look_around, run_check

try:
    from launch.common.cli import main_simple
except ModuleNotFoundError as missing:  # a bare machine with torch has no Hydra
    if (missing.name or "").partition(".")[0] not in ("hydra", "omegaconf"):
        raise
    from launch.gpu.plain_cli import main_simple


def check(args: GpuCheckArgs) -> int:
    """Run the parts that this machine can run."""
    return run_check(args, look_around, in_a_process(args.device))


if __name__ == "__main__":
    sys.exit(main_simple(GpuCheckArgs, check))
