"""A table of architectures: which can be a policy, a reward model, and what refuses the others.

Each family is made small and at random, and goes through a DeepSpeed rank and a vLLM engine
(`launch.benches.architecture_probe`). docs/results/architectures.md holds the result.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import UserError
from launch.benches.tiny_models import FAMILIES, make_tiny

_PARITY = 1e-4  # of log-probs and scores in float32
_DEADLINE_S = 400.0
_PROBE = Path(__file__).with_name("architecture_probe.py")


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one family, in words."""

    family: str
    policy: str
    parity: str
    rows: str  # how samples are laid out
    reward_model: str

    def markdown(self) -> str:
        """One line of the table."""
        cells = (self.family, self.policy, self.parity, self.rows, self.reward_model)
        return f"| {' | '.join(cells)} |"


def measure_architectures(families: Sequence[str]) -> list[Row]:
    """Probe the families (all of them for none), print the table as it grows."""
    unknown = sorted(set(families) - FAMILIES.keys())
    if unknown:
        raise UserError(f"families: {', '.join(unknown)}: known are {', '.join(FAMILIES)}")
    head = ("family", "policy", "parity after updates", "rows", "reward model")
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for family in families or FAMILIES:
            rows.append(_row(family, Path(scratch)))
            sys.stdout.write(f"{rows[-1].markdown()}\n")
            sys.stdout.flush()
    return rows


def _row(family: str, scratch: Path) -> Row:
    policy = probe(family, scratch)
    reward_model = probe(family, scratch, scores=True)
    return Row(
        family,
        "works" if _works(policy) else _why(policy),
        _parity(policy),
        _rows(policy, reward_model),
        f"works ({_worst(reward_model):.0e})" if _works(reward_model) else _why(reward_model),
    )


def probe(family: str, scratch: Path, *, scores: bool = False) -> dict[str, Any]:
    """What the probe of one family found; `refused`, `failed` or `gaps`."""
    directory = scratch / f"{family.replace(' ', '-')}{'-rm' if scores else ''}"
    try:
        make_tiny(family, directory, scores=scores)
    except ValueError:  # transformers has no such class
        return {"refused": "transformers has no sequence classifier of this architecture"}
    env = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, str(_PROBE), str(directory), *(["score"] if scores else [])],
        env=env,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-200:]}"}
    return json.loads(lines[-1])


def _works(found: Mapping[str, Any]) -> bool:
    return "gaps" in found and "failed" not in found and _worst(found) <= _PARITY


def _worst(found: Mapping[str, Any]) -> float:
    return max(found["gaps"].values())


def _why(found: Mapping[str, Any]) -> str:
    if found.get("refused"):
        reason = re.sub(r"^[\w.=]+: ", "", str(found["refused"])).partition("; ")[0]
        reason = re.sub(r"(of )?/\S+ (is )?", "", reason)  # it lies in a temporary directory
        return f"refused: {reason}"
    if found.get("failed"):
        return f"**fails**: {found['failed']}"
    return f"**differs**: {found['gaps']}"


def _parity(found: Mapping[str, Any]) -> str:
    if not found.get("gaps") or found.get("failed"):
        return "-"
    return ", ".join(f"{name} {gap:.0e}" for name, gap in found["gaps"].items())


def _rows(policy: Mapping[str, Any], reward_model: Mapping[str, Any]) -> str:
    packs = policy.get("packs", reward_model.get("packs"))
    if packs is None:
        return "-"
    if not packs:
        return "one sample"
    return "packed, prefixes shared" if reward_model.get("shares") else "packed"
