"""Part `machine`: what is here, and how fast the device is at what bounds all else."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec

import torch

from launch.gpu.parts import Bench
from launch.gpu.shapes import timed
from rl.base.versions import installed_versions

_GIB = 2**30


def measure(bench: Bench) -> None:
    """Print versions and devices; record what the device has and does."""
    versions = {"python": platform.python_version(), **installed_versions()}
    versions["cuda"] = str(torch.version.cuda)
    versions["flash-attn"] = "here" if find_spec("flash_attn") else "missing"
    sys.stdout.write("".join(f"    {name} {found}\n" for name, found in versions.items()))
    if bench.device == "cuda":
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            bench.record(f"{about.name} {index}: memory", about.total_memory / _GIB, "GiB")
            bench.record(f"{about.name} {index}: capability", about.major + about.minor / 10)
    bench.record("matrix product in bfloat16", matrix_rate(bench) / 1e12, "TFLOP/s")
    numbers = torch.empty(2**22 if bench.is_rehearsal else 2**31, dtype=torch.uint8)
    numbers = numbers.to(bench.device)
    copy = torch.empty_like(numbers)
    seconds, _ = timed(bench, lambda: copy.copy_(numbers), 10)
    bench.record("copy on the device, read and written", 2 * len(numbers) / seconds / 1e9, "GB/s")


def matrix_rate(bench: Bench) -> float:
    """Operations a second of a square matrix product in bfloat16: what MFU is a share of."""
    size = 256 if bench.is_rehearsal else 8192
    one = torch.randn(size, size, device=bench.device, dtype=torch.bfloat16)
    seconds, _ = timed(bench, lambda: one @ one, 10)
    return 2 * size**3 / seconds
