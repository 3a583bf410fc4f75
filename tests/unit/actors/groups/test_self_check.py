"""Engines and ranks that differ end a run at its start, and in the step in which they part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.groups.self_check import check_engines, check_mismatch, check_ranks, is_strict
from conf.errors import EngineError
from conf.schema import Config
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import Ask, Completion, Finish, PromptGroup
from tests.settings import run_config
from tests.unit.rl.fakes import ask_of

pytestmark = pytest.mark.unit


def config(*overrides: str) -> Config:
    return run_config(["experiment=quickstart", *overrides])


def group(prompt: Any, gap: float) -> PromptGroup:
    completions = tuple(
        Completion(
            prompt_id=prompt.id,
            sample_idx=index,
            text="",
            token_ids=np.arange(5, 9, dtype=np.int32),
            rollout_logprobs=np.full(4, gap - 1.0, dtype=np.float32),
            finish=Finish.LENGTH,
            policy_version=0,
        )
        for index in range(2)
    )
    return PromptGroup(
        ask=ask_of(prompt, 2),
        prompt_token_ids=np.arange(3, 10, dtype=np.int32),
        completions_G=completions,
        engine="rollout-0",
        finished_s=0.0,
    )


class Ranks:
    """Ranks that say -1 of every token."""

    packing = Packing(num_ranks=2, microbatch_tokens=256, share_prefix="on")

    def __init__(self) -> None:
        self.gave_way = False

    async def outputs(self, minibatch: Minibatch) -> Any:
        return tuple(
            tuple(np.full(mb.place_M.size, -1.0, np.float32) for mb in rank)
            for rank in minibatch.microbatches_by_rank
        )

    async def give_way(self) -> None:
        self.gave_way = True


def engines(*gaps: float) -> tuple[Any, Ranks]:
    """Engines that are that far away from the ranks, and the ranks."""

    class Engine:
        def __init__(self, gap: float) -> None:
            self.gap = gap

        async def generate(self, asks: Sequence[Ask], step: int) -> Any:
            for ask in asks:
                assert ask.sampling.top_p == 1.0 and ask.sampling.top_k == -1
                yield group(ask.prompt, self.gap)

    return SimpleNamespace(seats=gaps, alone=Engine), Ranks()


def check(rollout: Any, ranks: Any, *overrides: str, weights: str = "its weights") -> None:
    asyncio.run(check_engines(config(*overrides), rollout, ranks, 0, weights))


def test_engines_that_agree_to_rounding_go_on_awake():
    rollout, ranks = engines(1e-6, -1e-5)
    check(rollout, ranks)
    assert ranks.gave_way


def test_the_engine_that_differs_is_named_with_its_weights():
    rollout, ranks = engines(0.0, 0.5)
    with pytest.raises(EngineError) as caught:
        check(rollout, ranks, weights="the weights that were published to it")
    message = str(caught.value)
    assert "rollout-1 and the policy ranks are 0.5 apart" in message
    assert "with the weights that were published to it" in message
    assert "samples from another model" in message


def test_nan_differs():
    with pytest.raises(EngineError):
        check(*engines(float("nan")))


def test_a_warning_goes_on_and_off_does_not_look(capsys: pytest.CaptureFixture[str]):
    rollout, ranks = engines(0.5)
    check(rollout, ranks, "++self_check.action=warn")
    assert "0.5 apart" in "".join(capsys.readouterr())
    check(rollout, ranks, "++self_check.action=off")
    assert "".join(capsys.readouterr()) == ""


def test_a_strict_run_ends_in_the_step_whose_mismatch_is_above_the_bound():
    cfg = config()
    assert is_strict(cfg.self_check, cfg.rollout, stale=cfg.algorithm.max_staleness > 0)
    check_mismatch(cfg.self_check, "float32", 2, {"rollout/mismatch_kl": 1e-6})
    check_mismatch(cfg.self_check, "float32", 2, {})  # a step without an update
    with pytest.raises(EngineError, match=r"step 2: rollout/mismatch_kl is 1\.8 .*bound: 0\.001"):
        check_mismatch(cfg.self_check, "float32", 2, {"rollout/mismatch_kl": 1.8})
    loose = config("++self_check.mismatch_kl=2.0").self_check
    check_mismatch(loose, "float32", 2, {"rollout/mismatch_kl": 1.8})


@pytest.mark.parametrize(
    "override",
    [
        *("algorithm.max_staleness=1", "++rollout.top_p=0.9", "++rollout.top_k=101"),
        "++self_check.action=off",
    ],
)
def test_a_run_that_samples_from_another_distribution_on_purpose_has_no_bound(override: str):
    cfg = config(override)
    assert not is_strict(cfg.self_check, cfg.rollout, stale=cfg.algorithm.max_staleness > 0)


def test_a_run_that_replays_older_samples_has_no_bound():
    cfg = config()
    assert not is_strict(cfg.self_check, cfg.rollout, stale=True)


def test_truncated_sampling_that_the_engines_record_has_the_bound():
    cfg = config("++rollout.top_p=0.9", "++rollout.top_k=20")
    assert is_strict(cfg.self_check, cfg.rollout, stale=cfg.algorithm.max_staleness > 0)


class TrainGroup:
    """Ranks whose model cannot be trained."""

    packing = Packing(num_ranks=1, microbatch_tokens=256)

    async def self_check(self, model: str, plain_bytes: int) -> Any:
        raise EngineError(f"self-check of {model}: other numbers")

    def unchecked(self) -> None:
        self.packing = replace(self.packing, share_prefix="off")


def test_a_model_that_ranks_read_in_two_ways_is_refused():
    with pytest.raises(EngineError, match="self-check of m: other numbers"):
        asyncio.run(check_ranks(config().self_check, TrainGroup(), "m"))  # pyright: ignore[reportArgumentType]
    quiet = replace(config().self_check, action="off")
    trainer = TrainGroup()
    trainer.packing = replace(trainer.packing, share_prefix="auto")
    asyncio.run(check_ranks(quiet, trainer, "m"))  # pyright: ignore[reportArgumentType]
    assert trainer.packing.share_prefix == "off"  # nobody knows whether it would be exact
