"""Parts of the check of a GPU, rehearsed on a CPU: they run, and keep their bounds in float32."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


def rehearsed(parts: str, output: Path) -> dict[str, dict[str, Any]]:
    """What became of each part, by name, with its figures by name."""
    done = subprocess.run(
        [sys.executable, "launch/gpu_check.py", "device=cpu", f"parts={parts}", f"output={output}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((output / "gpu_check.json").read_text())
    return {
        part["name"]: part | {"rows": {row["what"]: row for row in part["rows"]}}
        for part in found["parts"]
    }


def test_every_way_to_compute_a_gradient_is_compared(tmp_path: Path) -> None:
    found = rehearsed("machine+head+kernels+prefix_tree+reward", tmp_path)
    assert {part["status"] for part in found.values()} == {"good"}
    kernels = found["kernels"]["rows"]
    for layout in ("a row each", "packed", "tree"):
        assert kernels[f"sdpa, {layout}: gradient"]["value"] <= 1e-4
    assert kernels["flex_attention, tree"]["skipped"] == "trains on a GPU only"
    tree = found["prefix_tree"]["rows"]
    whole, shared = (
        tree[f"{name}: tokens computed"]["value"]
        for name in ("rows, SDPA", "tree, SDPA with a dense mask")
    )
    assert (whole, shared) == (16 * (64 + 16), 64 + 16 * 16 + 128)
    assert tree["tree, SDPA with a dense mask, beside rows: gradient"]["value"] <= 1e-4
    assert found["head"]["rows"]["log-probs, largest difference"]["value"] <= 1e-4
    # In bfloat16 here too, so that the error is one.
    assert 0 < found["reward"]["rows"]["64 tokens: largest error"]["value"] <= 0.1


def test_a_zero_3_rank_takes_the_step_of_plain_torch(tmp_path: Path) -> None:
    rows = rehearsed("trainer_small", tmp_path)["trainer_small"]["rows"]
    assert rows["loss beside plain torch"]["value"] <= 1e-5
    assert rows["gradient norm"]["value"] <= 1e-4
    assert rows["speed"]["value"] > 0


def test_a_fleet_publishes_and_agrees_on_numbers(tmp_path: Path) -> None:
    part = rehearsed("engines", tmp_path)["engines"]
    assert part["status"] == "good"
    assert part["rows"]["checksum of the weights, difference"]["value"] == 0
    assert part["rows"]["log-probs of engine and policy"]["value"] <= 1e-3
    assert part["rows"]["log-probs that the updates moved"]["value"] >= 1e-2
    assert part["rows"]["scores beside transformers"]["value"] <= 1e-3
    assert part["rows"]["sleep"]["skipped"] == "a CPU is not shared in turns"
