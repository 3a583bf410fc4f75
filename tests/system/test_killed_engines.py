"""An engine that is killed leaves nothing that grows: the next takes its temporary files away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

POLICY = Path(__file__).resolve().parents[2] / "assets/minipy/policy"
ENGINE = f"""
import os, sys, tempfile
from pathlib import Path
from actors.engines.specs import EngineSpec
from actors.engines.vllm_engine import EngineLoop

spec = EngineSpec(
    model={str(POLICY)!r}, runner="generate", device="cpu", dtype="float32", max_model_len=64,
    max_num_seqs=2, tensor_parallel=1, gpu_memory_utilization=0.85, kv_cache_gib=0.1,
    cpu_threads=1, sleep_mode=False, seed=0,
)
loop = EngineLoop(spec, "engine")
here = [p for p in Path(tempfile.gettempdir()).rglob("*") if p.is_file() and p.name != ".lock"]
print(*(path.parent for path in here), sep="\\n", flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
loop.close()
"""


def files_of_engine(temporary: Path, end: str) -> list[Path]:
    """Where the files of an engine were while it lived."""
    result = subprocess.run(
        [sys.executable, "-c", ENGINE, end],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "TORCHINDUCTOR_CACHE_DIR": str(temporary.with_name("compiled")),
        },
    )
    return [Path(line) for line in result.stdout.splitlines() if line.startswith("/")]


def test_what_a_killed_engine_left_goes_with_the_next(tmp_path: Path):
    temporary = tmp_path / "t"
    temporary.mkdir()
    (left,) = files_of_engine(temporary, "killed")
    assert left.parent == temporary and left.is_dir()
    (own,) = files_of_engine(temporary, "closed")  # its own, and not that of the one before
    assert own != left and not left.exists() and not own.exists()
