"""Which stages the whole loop has."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.stages.pipeline import Stage, WholeLoop
from rl.base.console import Console
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("rlvr_steps", "runs"), [(60, True), (0, False)])
def test_without_rlvr_steps_there_is_no_rlvr_run(
    monkeypatch: pytest.MonkeyPatch, rlvr_steps: int, runs: bool
) -> None:
    asked: dict[str, tuple[Any, ...]] = {}
    for name in ("warm_start", "rlvr", "sample", "pairs", "reward_model"):

        async def stage(_: WholeLoop, *after: Any, name: str = name) -> Stage:
            asked[name] = after
            return Stage(name, Path(name), {}, 0.0)

        monkeypatch.setattr(WholeLoop, f"_{name}", stage)
    cfg = run_config(["experiment=whole_loop", f"++loop.rlvr_steps={rlvr_steps}"])
    policy, reward_model, _ = asyncio.run(WholeLoop(cfg, Console()).run())
    assert (policy, reward_model) == (Path("warm_start"), Path("reward_model"))
    assert ("rlvr" in asked) == runs == (asked["pairs"][0] is not None)
