"""The parts in their order: what each measures, needs and may take; and the process that runs one.

`python -m launch.gpu.parts NAME DEVICE FILE` runs one part and writes its rows to FILE; `check`
calls it. The cheap parts that need the least come first: a budget that runs out costs the others.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

from launch.gpu.results import Device, Recorder

_TORCH = ("torch", "transformers")
_ZERO = (*_TORCH, "deepspeed")
_ENGINES = (*_ZERO, "ray", "vllm", "hydra")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the check."""

    name: str
    about: str  # what it measures, a noun phrase
    entry: str  # `module:function` below `launch.gpu`, called with a Bench
    packages: tuple[str, ...] = _TORCH
    gpus: int = 1  # that it needs; on a CPU only parts of one device are rehearsed
    limit_s: int
    least_s: int  # with less left of the budget it is not begun

    def lacks(self, packages: Collection[str], gpus: int, device: Device) -> str:
        """Why it cannot run here; empty when it can."""
        missing = [name for name in self.packages if name not in packages]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if self.gpus > (gpus if device == "cuda" else 1):
            return f"needs {self.gpus} GPUs, {gpus} here"
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
        limit_s=70,
        least_s=30,
    ),
    Part(
        name="trainer_large",
        about="the same at the larger shape",
        entry="trainer:measure_large",
        packages=_ZERO,
        limit_s=80,
        least_s=40,
    ),
    Part(
        name="engines",
        about="policy, vLLM and reward model on one device: publication, parity, sleep, scores",
        entry="engines:measure_shared",
        packages=_ENGINES,
        limit_s=240,
        least_s=80,
    ),
    Part(
        name="nccl",
        about="publication between two devices, and parity after it",
        entry="engines:measure_apart",
        packages=_ENGINES,
        gpus=2,
        limit_s=150,
        least_s=80,
    ),
    Part(
        name="quickstart",
        about="few steps of experiment=quickstart_gpu",
        entry="engines:measure_quickstart",
        packages=_ENGINES,
        limit_s=240,
        least_s=90,
    ),
    # DeepSpeed compiles its optimizer for the host first, which may take a minute: it comes last.
    Part(
        name="trainer_offload",
        about="the smaller shape with the optimizer in host memory",
        entry="trainer:measure_offload",
        packages=_ZERO,
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
