"""The parts in their order: what each measures, needs and may take; and the process that runs one.

`python -m launch.gpu.parts NAME DEVICE FILE` runs one part and writes its rows to FILE; `check`
calls it. The cheap parts that need the least come first, and none takes the time that a later one
needs at the least.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

from launch.gpu.results import Device, Recorder

_TORCH = ("torch", "transformers")
_ZERO = (*_TORCH, "deepspeed")
_ENGINES = (*_ZERO, "ray", "vllm", "hydra")
C_COMPILER, CXX_COMPILER, NINJA = "a C compiler", "a C++ compiler", "ninja"
# The variable that names a tool, and the programs of which one is taken where it is not set: as
# Triton and torch's C++ extensions look for them.
TOOLS: Mapping[str, tuple[str, ...]] = {
    C_COMPILER: ("CC", "gcc", "clang"),
    CXX_COMPILER: ("CXX", "c++"),
    NINJA: ("", "ninja"),
}


def finds(tool: str) -> bool:
    """Whether a tool of `TOOLS` can be started here."""
    variable, *programs = TOOLS[tool]
    given = os.environ.get(variable)
    return any(shutil.which(name) for name in ([given] if given else programs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What is on this machine."""

    packages: Collection[str]
    tools: Collection[str]  # of `TOOLS`
    gpus: tuple[str, ...]  # their names
    gpu_gib: float  # memory of the smallest
    torch: str  # its version


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the check."""

    name: str
    about: str  # what it measures, a noun phrase
    entry: str  # `module:function` below `launch.gpu`, called with a Bench
    packages: tuple[str, ...] = _TORCH
    tools: tuple[str, ...] = ()  # that it needs on a GPU, of `TOOLS`
    gpus: int = 1  # that it needs; on a CPU only parts of one device are rehearsed
    gib: float = 12.0  # memory of each of them, estimated
    limit_s: int
    least_s: int  # with less left of the budget it is not begun

    def lacks(self, here: Here, device: Device) -> str:
        """Why it cannot run here; empty when it can."""
        missing = [name for name in self.packages if name not in here.packages]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if self.gpus > (len(here.gpus) if device == "cuda" else 1):
            return f"needs {self.gpus} GPUs, {len(here.gpus)} here"
        if device == "cpu":  # small sizes, and nothing is compiled
            return ""
        if absent := [name for name in self.tools if name not in here.tools]:
            return f"not found: {', '.join(absent)}"
        if self.gib > here.gpu_gib:
            return f"needs {self.gib:g} GiB of a GPU, {here.gpu_gib:.1f} here"
        return ""


PARTS: tuple[Part, ...] = (
    Part(
        name="machine",
        about="versions, devices, speed of a matrix product and of a copy",
        entry="machine:measure",
        packages=("torch",),
        limit_s=40,
        least_s=10,
    ),
    Part(
        name="head",
        about="log-probs in chunks beside whole logits: numbers, time, memory",
        entry="kernels:measure_head",
        gib=20,  # float32 logits of 8,192 places three times, those in bfloat16 twice
        limit_s=40,
        least_s=15,
    ),
    Part(
        name="kernels",
        about="loss and gradient of SDPA, flash-attn and FlexAttention, with and without trees",
        entry="kernels:measure_kernels",
        limit_s=100,
        least_s=25,
    ),
    Part(
        name="prefix_tree",
        about="a tree of 16 completions beside 16 rows: numbers, time, memory",
        entry="tree:measure",
        limit_s=100,
        least_s=25,
    ),
    Part(
        name="reward",
        about="scores in bfloat16 beside float32: error, order, answers a second",
        entry="reward:measure",
        limit_s=60,
        least_s=20,
    ),
    Part(
        name="trainer_small",
        about="ZeRO-3 on one rank at the smaller shape: loss, gradient norm, speed, memory",
        entry="trainer:measure_small",
        packages=_ZERO,
        gib=18,
        limit_s=70,
        least_s=30,
    ),
    Part(
        name="trainer_large",
        about="the same at the larger shape",
        entry="trainer:measure_large",
        packages=_ZERO,
        gib=40,
        limit_s=80,
        least_s=40,
    ),
    Part(
        name="engines",
        about="policy, vLLM and reward model on one device: publication, parity, sleep, scores",
        entry="engines:measure_shared",
        packages=_ENGINES,
        tools=(C_COMPILER,),  # Triton's
        gib=32,
        limit_s=240,
        least_s=80,
    ),
    Part(
        name="quickstart",
        about="few steps of experiment=quickstart_gpu",
        entry="engines:measure_quickstart",
        packages=_ENGINES,
        tools=(C_COMPILER,),  # Triton's
        limit_s=240,
        least_s=90,
    ),
    Part(
        name="nccl",
        about="publication between two devices, and parity after it",
        entry="engines:measure_apart",
        packages=_ENGINES,
        gpus=2,
        tools=(C_COMPILER,),  # Triton's
        gib=20,
        limit_s=150,
        least_s=60,
    ),
    # DeepSpeed compiles its optimizer for the host first, which may take a minute: it comes last.
    Part(
        name="trainer_offload",
        about="the smaller shape with the optimizer in host memory",
        entry="trainer:measure_offload",
        packages=_ZERO,
        tools=(CXX_COMPILER, NINJA),  # DeepSpeed compiles its optimizer for the host
        limit_s=120,
        least_s=60,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a part works with."""

    device: Device  # `cpu` is a rehearsal, with small sizes and in float32
    record: Recorder
    folder: Path  # for files of its own; gone afterwards

    @property
    def is_rehearsal(self) -> bool:
        """Whether sizes are small, and figures mean nothing."""
        return self.device == "cpu"

    @property
    def dtype(self) -> Literal["bfloat16", "float32"]:
        """Of the weights."""
        return "float32" if self.is_rehearsal else "bfloat16"


def run_part(name: str, device: Device, file: Path) -> None:
    """Run one part in this process."""
    (part,) = [part for part in PARTS if part.name == name]
    module, _, function = part.entry.partition(":")
    measure: Callable[[Bench], None] = getattr(
        importlib.import_module(f"launch.gpu.{module}"), function
    )
    with TemporaryDirectory(prefix="gpu-check-") as folder:
        measure(Bench(device=device, record=Recorder(name, file), folder=Path(folder)))


if __name__ == "__main__":
    run_part(sys.argv[1], cast("Device", sys.argv[2]), Path(sys.argv[3]))
