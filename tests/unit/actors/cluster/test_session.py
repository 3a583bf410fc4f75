"""A session ends as its body does, and a group of failed tasks ends it with one error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import ray

from actors.cluster.session import kept, session
from actors.jobs import ablation
from conf.errors import EngineError
from conf.schema import Config
from rl.base.console import Console
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.fixture
def cfg(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration whose session starts no Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    return run_config()


@pytest.fixture
def shutdowns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(ray, "shutdown", lambda: found.append("ray"))
    return found


async def _fail(error: Exception) -> None:
    raise error


async def _two_tasks_of_which_one_fails(error: Exception) -> None:
    async with asyncio.TaskGroup() as outer:

        async def nested() -> None:
            async with asyncio.TaskGroup() as inner:
                inner.create_task(asyncio.sleep(60))
                inner.create_task(_fail(error))

        outer.create_task(nested())


def test_a_failed_task_ends_the_session_with_its_own_error_and_ray_is_gone(
    cfg: Config, shutdowns: list[str]
) -> None:
    died = EngineError("rollout-0 died")
    with pytest.raises(EngineError) as caught, session(cfg.ray, "name") as run:
        run(_two_tasks_of_which_one_fails(died))
    assert caught.value is died
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert shutdowns == ["ray"]


def test_errors_of_others_are_not_hidden_either(cfg: Config, shutdowns: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), session(cfg.ray, "name") as run:
        run(_two_tasks_of_which_one_fails(ZeroDivisionError()))
    assert shutdowns == ["ray"]


def test_without_an_error_the_result_of_a_coroutine_is_handed_on(
    cfg: Config, shutdowns: list[str]
) -> None:
    async def three() -> int:
        return 3

    with session(cfg.ray, "name") as run:
        assert (run(three()), run(three())) == (3, 3)
        assert shutdowns == []
    assert shutdowns == ["ray"]


def test_an_engine_that_dies_ends_an_ablation_with_one_error(
    cfg: Config, shutdowns: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def arm(*_: object) -> None:
        await _two_tasks_of_which_one_fails(EngineError("rollout-0 died"))

    monkeypatch.setattr(ablation, "_run_arm", arm)
    with pytest.raises(EngineError, match="rollout-0 died"):
        made = ablation.Arm(label="arm", seeds=(0,), exam=None)
        ablation.run_arm(cfg, made, tmp_path / "runs.jsonl")
    assert shutdowns == ["ray"]


def test_work_that_is_cut_short_says_where_it_goes_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    results = tmp_path / "out.samples.jsonl"
    for nothing_there_yet in (True, False):
        with pytest.raises(EngineError), kept(results, Console()):
            raise EngineError("rollout-0 died")
        said = "the same command goes on from" in capsys.readouterr().out
        assert said is not nothing_there_yet
        results.touch()
