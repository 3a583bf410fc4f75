"""From the command to the end of the first step, part by part, beside its engines alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from actors.groups.fleet import policy_spec, reward_spec, rollout_spec
from conf.schema import Config
from launch.benches.steps.quickstart import NUM_UPDATES
from launch.benches.steps.raw_engines import RawDeepSpeed, RawVllm
from launch.benches.timing import Timing, cpu_s_of, ratio, spread
from rl.base.console import Console

_ROOT = Path(__file__).resolve().parents[3]
_STAGE, _STEP = "==>", "step"  # how the lines begin that a run writes when it comes so far
_COMMAND = ("launch/train.py", "experiment=quickstart", "algorithm.num_steps=1", "name=start")
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """A run up to the end of its first step."""

    whole: Timing
    parts: Mapping[str, float]  # seconds until the next part, by what the run says


def measure_start(cfg: Config, num_repeats: int) -> None:
    """Print what the first step waits for, and what its engines take to start alone."""
    starts: list[_Start] = []
    alone: list[Timing] = []
    for _ in range(num_repeats + 1):  # the first brings the files into memory
        starts.append(_run())
        alone.append(_engines_alone(cfg))
    Console().table("from the command to the end of step 1", _rows(starts[1:], alone[1:]))


def _run() -> _Start:
    begun_s = time.perf_counter()
    with TemporaryDirectory(prefix="bench-") as folder:
        run = subprocess.Popen(
            [sys.executable, *_COMMAND, f"output_dir={folder}"],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: list[str] = []
        marks = [("command", begun_s)]
        for line in run.stdout or ():
            said.append(line)
            if line.startswith(_STAGE):
                marks.append((line.split()[1], time.perf_counter()))
            elif line.startswith(_STEP):
                break
        end_s, cpu_s = time.perf_counter(), cpu_s_of(run.pid)
        run.terminate()
        run.communicate()
    if not said or not said[-1].startswith(_STEP):
        raise RuntimeError(f"the run ended before its first step: {''.join(said[-20:])}")
    ends = [*(mark_s for _, mark_s in marks[1:]), end_s]
    parts: dict[str, float] = {}
    for (name, from_s), until_s in zip(marks, ends, strict=True):
        parts[name] = parts.get(name, 0.0) + until_s - from_s
    return _Start(whole=Timing(wall_s=end_s - begun_s, cpu_s=cpu_s), parts=parts)


def _engines_alone(cfg: Config) -> Timing:
    """The engines of a run in plain processes, all started at once."""
    begun_s = time.perf_counter()
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        started = [
            pool.submit(RawVllm, rollout_spec(cfg, cfg.model.path, trains=False)),
            pool.submit(RawVllm, reward_spec(cfg.reward, cfg.placement, cfg.seed)),
            pool.submit(RawDeepSpeed, policy_spec(cfg, NUM_UPDATES), cfg.policy.ranks),
        ]
        for engine in started:
            stack.callback(engine.result().close)
        end_s = time.perf_counter()
        below = psutil.Process().children(recursive=True)
        cpu_s = sum(cpu_s_of(process.pid) for process in below)
    return Timing(wall_s=end_s - begun_s, cpu_s=cpu_s)


def _rows(starts: Sequence[_Start], alone: Sequence[Timing]) -> list[Row]:
    wall = [start.whole.wall_s for start in starts]
    cpu = [start.whole.cpu_s for start in starts]
    return [
        ("first step done", spread(wall), f"CPU {spread(cpu)}, of what still runs then"),
        *(
            (f"- {name}", spread([start.parts.get(name, 0.0) for start in starts]), "")
            for name in starts[0].parts
        ),
        (
            "engines alone",
            spread([one.wall_s for one in alone]),
            f"CPU {spread([one.cpu_s for one in alone])}; in plain processes, at once",
        ),
        ("ratio", ratio(wall, [one.wall_s for one in alone]), "first step to engines alone"),
    ]
