"""The figures at the end say which judge they come from; a run begins over no other's steps."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from actors.jobs import experiment
from actors.jobs.experiment import (
    reward_model_accuracy,
    run_experiment,
    show_summary,
    summarise,
)
from actors.stages.evaluation import Evaluation
from actors.stages.rl_run import RlResult
from conf.errors import IncompleteError, LostActorError, SaveError, StoppedError, UserError
from conf.schema import Config
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.report.figures import final_table
from rl.run.checkpoint import commit, staging_directory
from rl.run.directory import RunDirectory
from rl.run.summary import AlarmFigures, RunSummary, SetFigures, Watch
from tests.settings import shipped_config
from tests.unit.rl.fakes import make_group, make_judged, make_prompts
from tests.unit.rl.run.test_summary import PROBE

pytestmark = pytest.mark.unit


SUM = "reward=sum;reward.components={a: {judge: rm}, b: {judge: execution}}"


def rl_result(watch: Watch | None = None) -> RlResult:
    group = make_group(make_prompts(1)[0], 8)
    judged = make_judged(group, [float(i) for i in range(8)], (False, True) * 4)
    figures = Evaluation(groups_P=(judged,), num_executed=8).figures
    return RlResult(
        base=figures,
        final=figures,
        sets={},
        num_problems=1,
        labels="rm",
        num_steps=60,
        valid_rate_first=0.5,
        valid_rate_last=1.0,
        executed_for_reward=7,
        executed_for_evaluation=16,
        partition=[],
        start_s=1.0,
        watch=watch or Watch(),
    )


def summary_of(*overrides: str, watch: Watch | None = None) -> RunSummary:
    cfg = shipped_config(list(overrides))
    accuracy = reward_model_accuracy(cfg.reward, {})
    return summarise(cfg, rl_result(watch), accuracy, 1.0, {"rl": 1.0})


def reported_chooser(summary: RunSummary) -> str:
    """What the table of the report says of the best of N, before and after."""
    (chooser,) = {
        about.partition("chosen by ")[2]
        for name, _, about in final_table(summary)
        if name.startswith("best of")
    }
    return chooser


@pytest.mark.parametrize(
    ("override", "kind", "tests", "row"),
    [
        ("reward=codescaler", "rm", None, "a reward model; no tests"),
        ("reward=execution", "execution", "binary", "tests, binary; no reward model"),
        ("reward=hybrid", "hybrid", "binary", "a reward model where there are none"),
        (SUM, "sum", "binary", "several judges, weighed"),
    ],
)
def test_the_summary_and_its_table_name_the_reward(capsys, override, kind, tests, row):
    summary = summary_of(*override.split(";"))
    assert (summary.reward, summary.reward_execution) == (kind, tests)
    assert (summary.recipe, summary.labels) == ("grpo", "rm")  # labels are those of the result
    assert (summary.reward_model is None) == (kind == "execution")
    assert (summary.rm_pair_accuracy is None) == (kind == "execution")
    show_summary(Console(), summary, RunDirectory(Path("run")))
    table = capsys.readouterr().out
    assert row in table
    choosers = {"rm": "the RM", "sum": "the sum"}
    assert f"chosen by {choosers.get(kind, 'tests')}" in table
    assert reported_chooser(summary) == choosers.get(kind, "tests")


def test_a_judge_of_ones_own_is_not_called_tests(capsys):
    cfg = shipped_config()
    own = dataclasses.replace(cfg, reward=dataclasses.replace(cfg.reward, kind=cast("Any", "mine")))
    summary = summarise(own, rl_result(), None, 1.0, {"rl": 1.0})
    assert (summary.reward, summary.reward_execution) == ("mine", None)
    show_summary(Console(), summary, RunDirectory(Path("run")))
    table = capsys.readouterr().out
    assert "chosen by your judge" in table and "a judge of your own" in table
    assert "tests" not in table
    assert reported_chooser(summary) == "your judge"


def test_the_figures_before_and_after_are_of_the_samples_of_the_evaluation():
    summary = summary_of()
    assert summary.num_samples == 8
    assert summary.base == summary.final
    assert summary.base.pass_at_1 == pytest.approx(0.5)
    assert (summary.base.best_of, summary.base.oracle) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("fired_at", "cells"),
    [([], ["never", "held"]), ([44, 60], ["step 44", "probe fell"])],
)
def test_the_table_says_whether_the_alarm_fired_and_what_the_probe_cost(capsys, fired_at, cells):
    summary = summary_of(watch=watched(13, fired_at))
    assert summary.to_json()["programs_executed_for_probe"] == 9
    show_summary(Console(), summary, RunDirectory(Path("run")))
    table = capsys.readouterr().out
    assert all(cell in table for cell in [*cells, "13 probes, 8% of the time"])


def watched(num_probes: int, fired_at: list[int]) -> Watch:
    return Watch(
        probe=dataclasses.replace(PROBE, num_probes=num_probes, time_share=0.08),
        alarm=AlarmFigures(action="warn", fired_at=fired_at, stopped_at=None, best_policy=None),
        num_executed=9,
    )


@pytest.mark.parametrize(
    ("num", "words"),
    [
        (1, "too few probes to judge (1 of 4), 8% of the time"),
        (3, "too few probes to judge (3 of 4), 8% of the time"),
        (4, "the probe held; 4 probes, 8% of the time"),
    ],
)
def test_an_alarm_that_could_not_fire_yet_is_not_called_quiet(capsys, num, words):
    show_summary(Console(), summary_of(watch=watched(num, [])), RunDirectory(Path("run")))
    assert words in " ".join(capsys.readouterr().out.split())


def test_without_a_probe_the_table_says_that_nobody_watched(capsys):
    show_summary(Console(), summary_of(), RunDirectory(Path("run")))
    assert "no probe" in capsys.readouterr().out


ENDS = [StoppedError("stopped by SIGTERM"), LostActorError("rollout-0 is lost")]


@pytest.fixture(params=ENDS, ids=str)
def ended(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Exception:
    """What ends every run before it does anything."""

    def run_in(body: Coroutine[Any, Any, None]) -> None:
        body.close()
        raise request.param

    @contextmanager
    def session(*_: object) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
        yield run_in

    monkeypatch.setattr(experiment, "session", session)
    return request.param


def end_of(monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], Any]) -> None:
    """Let `run`, which is given the best effort of the run, take the place of the RL."""

    class Run:
        def __init__(self, cfg: Config, directory: Path, console: Console, *rest: Any) -> None:
            self._effort = rest[0]

        async def run(self) -> RlResult:
            return run(self._effort)

    @contextmanager
    def session(*_: object) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
        yield asyncio.run

    monkeypatch.setattr(experiment, "session", session)
    monkeypatch.setattr(experiment, "RlRun", Run)


def test_a_run_that_is_done_says_what_it_could_not_write_about_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def finish(effort: BestEffort) -> RlResult:
        hf.mkdir(parents=True)
        effort.failed("timeline.json", "No space left on device")
        return rl_result()

    end_of(monkeypatch, finish)
    monkeypatch.setattr(experiment, "write_summary", no_space)
    cfg = shipped_config([f"output_dir={tmp_path}"])
    hf = RunDirectory.of(cfg).hf
    with pytest.raises(IncompleteError) as caught:
        run_experiment(cfg)
    assert str(caught.value).startswith(f"the policy in {hf} is complete, but not what tells of")
    assert "timeline.json, summary.json" in str(caught.value)
    assert "held-out problems" in capsys.readouterr().out  # the table is shown all the same


def test_a_run_leaves_a_card_beside_its_policy_and_nothing_else_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cfg = shipped_config([f"output_dir={tmp_path}"])
    hf = RunDirectory.of(cfg).hf

    def finish(_: BestEffort) -> RlResult:
        hf.mkdir(parents=True)
        (hf / "model.safetensors").write_bytes(b"weights")
        return rl_result()

    end_of(monkeypatch, finish)
    train = Path(experiment.__file__).parents[2] / "launch/train.py"
    monkeypatch.setattr("sys.argv", [str(train), "experiment=quickstart", "++name=a b"])
    run_experiment(cfg)
    assert sorted(file.name for file in hf.iterdir()) == ["README.md", "model.safetensors"]
    assert (hf / "model.safetensors").read_bytes() == b"weights"
    card = (hf / "README.md").read_text()
    assert f"Trained from `{cfg.model.path}`" in card
    assert "```sh\npython launch/train.py experiment=quickstart 'name=a b'\n```" in card
    assert "| 1 held-out problems, 8 answers each | before | after |" in card


def test_a_card_that_cannot_be_written_costs_the_run_nothing_but_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    cfg = shipped_config([f"output_dir={tmp_path}"])
    run = RunDirectory.of(cfg)

    def finish(_: BestEffort) -> RlResult:
        run.hf.mkdir(parents=True)
        return rl_result()

    end_of(monkeypatch, finish)
    monkeypatch.setattr(experiment, "write_card", no_space)
    with pytest.raises(IncompleteError, match=r"is complete, but not .*: hf/README.md \("):
        run_experiment(cfg)
    assert run.summary.is_file()
    assert "held-out problems" in capsys.readouterr().out


def test_a_model_that_could_not_be_saved_is_one_line_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: BestEffort) -> RlResult:
        raise SaveError("hf cannot be written: No space left on device")

    end_of(monkeypatch, fail)
    with pytest.raises(SaveError, match="No space left on device; make room: there is no check"):
        run_experiment(shipped_config([f"output_dir={tmp_path}"]))


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("run", "the same command with resume=auto goes on after step 2"),
        ("run-2", "the same command with name=run-2 resume=auto goes on after step 2"),
    ],
)
def test_a_run_that_is_ended_says_how_it_goes_on_under_the_name_that_it_took(
    tmp_path: Path, ended: Exception, name: str, advice: str
):
    cfg = shipped_config([f"output_dir={tmp_path}", f"name={name}", "checkpoint.every=2"])
    run = RunDirectory.of(cfg)
    with pytest.raises(type(ended), match="there is no checkpoint yet"):
        run_experiment(cfg)
    assert json.loads(run.config.read_text())["checkpoint"]["every"] == 2
    commit(staging_directory(run.checkpoints, 2), run.checkpoints, 2, keep=2)
    with pytest.raises(type(ended), match=f"{ended}; {advice}"):
        run_experiment(dataclasses.replace(cfg, resume="auto"))


@pytest.mark.usefixtures("ended")
def test_a_run_never_begins_over_the_steps_of_another(tmp_path: Path):
    cfg = shipped_config([f"output_dir={tmp_path}"])
    run = RunDirectory.of(cfg)
    run.root.mkdir(parents=True)
    run.metrics.write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="holds 1 step of an earlier run"):
        run_experiment(cfg)
    assert [path.name for path in run.root.iterdir()] == ["metrics.jsonl"]


def test_the_table_has_a_row_for_every_named_set_of_held_out_problems(capsys, tmp_path):
    summary = summary_of()
    found = SetFigures(num_problems=30, base=summary.base, final=summary.final)
    summary = dataclasses.replace(summary, sets={"mbpp": found})
    show_summary(Console(), summary, RunDirectory(tmp_path))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mbpp")]
    assert [cell.strip() for cell in row.split("│")] == [
        "mbpp",
        "0.500 -> 0.500",
        "pass@1 on 30 problems of mbpp",
    ]
