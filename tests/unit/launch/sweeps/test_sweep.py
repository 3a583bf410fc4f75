"""Jobs of a sweep are apart from each other: directories, failures, signals."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema import Config
from conf.validate import to_dict
from launch.common.compose import compose_all
from launch.common.overrides import expand, forced_overrides
from launch.sweeps.command import conclude, directory_of, run_sweep, seen_from
from launch.sweeps.local_jobs import LocalJobs
from launch.sweeps.sweep import Outcome, Sweep, label
from rl.run.checkpoint import commit, staging_directory
from rl.run.start.lock import locked
from tests.unit.launch.sweeps.sweep_jobs import jobs_of, script_in, started

pytestmark = pytest.mark.unit


class InstantProcess:
    """Ends after some polls."""

    def __init__(self, polls: int, running: list[int]) -> None:
        self._left = polls
        self._running = running
        running.append(1)

    def poll(self) -> int | None:
        self._left -= 1
        if self._left == 0:
            self._running.pop()
        return None if self._left > 0 else 0

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def last_line(self) -> str:
        return ""


class Room:
    """A cluster that holds `size` jobs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.running: list[int] = []
        self.most = 0

    def fits(self, config: Config, running: Sequence[Config]) -> bool:
        return len(running) < self.size

    def start(self, overrides: Sequence[str], directory: Path) -> InstantProcess:
        process = InstantProcess(3, self.running)
        self.most = max(self.most, len(self.running))
        return process


def sweep_in(directory: Path) -> Sweep:
    return Sweep(LocalJobs(script_in(directory)), directory / "report", poll_s=0.02)


def test_jobs_run_one_after_the_other_each_in_a_directory_of_its_own(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "seed=0,1", "policy.lr=1e-5,1e-4")
    outcomes = sweep_in(tmp_path).run(jobs)
    assert set(outcomes.values()) == {Outcome("done")}
    names = ["0-seed_0-lr_1e-05", "1-seed_0-lr_0.0001", "2-seed_1-lr_1e-05", "3-seed_1-lr_0.0001"]
    assert [job.directory for job in jobs] == [
        tmp_path / "quickstart/run-sweep" / name for name in names
    ]
    for job in jobs:
        final = json.loads((job.directory / "summary.json").read_text())["final_pass@1"]
        assert final == pytest.approx(0.6 + 0.1 * job.config.seed + job.config.policy.lr)
        assert (job.directory / "output.log").read_text() == "step 1\n"
    one_at_a_time = [f"{what} {seed}" for seed in (0, 0, 1, 1) for what in ("start", "end")]
    assert started(tmp_path) == one_at_a_time


def test_a_failed_job_is_named_with_its_last_error_and_takes_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_in(tmp_path)
    outcomes = sweep.run(jobs_of(tmp_path, "seed=0,2,1"))
    assert [outcomes[number].status for number in range(3)] == ["done", "failed", "done"]
    assert conclude(sweep, interrupted=False) == 1
    out, err = capfd.readouterr()
    assert err == (
        "error: job 1 (seed=2): exit code 1: EngineError: rollout-0 died "
        f"({tmp_path}/quickstart/run-sweep/1-seed_2)\n"
    )
    assert "| failed " in out
    report = json.loads((tmp_path / "report/sweep.json").read_text())
    assert [row["status"] for row in report["jobs"]] == ["done", "failed", "done"]
    assert (tmp_path / "report/sweep.png").stat().st_size > 0


def test_the_same_command_with_resume_goes_on_where_it_ended(tmp_path: Path) -> None:
    sweep_in(tmp_path).run(jobs_of(tmp_path, "seed=0,2"))
    outcomes = sweep_in(tmp_path).run(jobs_of(tmp_path, "seed=0,2", "resume=auto"))
    assert [outcomes[number].status for number in range(2)] == ["done", "failed"]
    assert started(tmp_path) == ["start 0", "end 0", "start 2", "start 2"]


@pytest.mark.parametrize("again", [["resume=never"], ["resume=auto", "algorithm.num_steps=7"]])
def test_another_run_in_the_same_directory_is_not_taken_for_a_finished_one(
    tmp_path: Path, again: list[str]
) -> None:
    sweep_in(tmp_path).run(jobs_of(tmp_path, "seed=0,1"))
    sweep_in(tmp_path).run(jobs_of(tmp_path, "seed=0,1", *again))
    assert started(tmp_path).count("start 0") == 2


def multirun(directory: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """The exit code of `--multirun` with these overrides."""
    monkeypatch.setattr("sys.argv", [str(script_in(directory))])
    given = forced_overrides([f"output_dir={directory}", *overrides])
    lines_J = list(expand(given, sweep=True))
    return run_sweep(lines_J, compose_all(lines_J))


def test_the_same_sweep_twice_is_two_sweeps_unless_it_is_to_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweeps = tmp_path / "quickstart"
    assert multirun(tmp_path, monkeypatch, "seed=0,1") == 0
    assert multirun(tmp_path, monkeypatch, "seed=0,1") == 0
    said = "run-sweep holds 2 runs of an earlier sweep; this one is name=run-2"
    assert said in capfd.readouterr().out.replace("\n", " ")
    for name in ("run-sweep", "run-2-sweep"):
        assert (sweeps / name / "sweep.json").is_file()
        assert (sweeps / name / "1-seed_1/summary.json").is_file()
    assert multirun(tmp_path, monkeypatch, "seed=0,3", "overwrite=true") == 0
    (aside,) = sweeps.glob("run-sweep.old-*")
    assert (aside / "1-seed_1/output.log").is_file() and (aside / "sweep.json").is_file()
    assert not (sweeps / "run-sweep/1-seed_1").exists()


def test_a_sweep_with_a_name_that_is_taken_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multirun(tmp_path, monkeypatch, "seed=0", "name=lr")
    with pytest.raises(UserError, match="lr-sweep holds 1 run of an earlier sweep; give resume"):
        multirun(tmp_path, monkeypatch, "seed=0", "name=lr")
    with (
        locked(tmp_path / "quickstart/other-sweep", print),
        pytest.raises(UserError, match="other-sweep is in use by"),
    ):
        multirun(tmp_path, monkeypatch, "seed=0", "name=other")
    assert started(tmp_path) == ["start 0", "end 0"]


def test_a_sweep_goes_on_with_no_job_that_depends_on_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multirun(tmp_path, monkeypatch, "seed=0,1")
    for job in jobs_of(tmp_path, "seed=0,1"):
        job.run.config.write_text(json.dumps(to_dict(job.config)))
        commit(staging_directory(job.run.checkpoints, 2), job.run.checkpoints, 2, keep=2)
    with pytest.raises(UserError) as caught:
        multirun(tmp_path, monkeypatch, "seed=0,1", "resume=auto", "reward.shaping=raw")
    faults = str(caught.value).splitlines()
    assert [fault.partition(": the steps")[0] for fault in faults] == [
        "job 0 (seed=0): reward.shaping",
        "job 1 (seed=1): reward.shaping",
    ]
    assert started(tmp_path).count("start 0") == 1


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_job_that_runs_and_starts_no_other(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(tmp_path, "seed=0,9,1")
    sweep = sweep_in(tmp_path)

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not (jobs[1].directory / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sweep.run(jobs)
    assert (jobs[1].directory / "cleaned").exists()
    assert conclude(sweep, interrupted=True) == 1
    out, err = capfd.readouterr()
    statuses = [
        row["status"] for row in json.loads((tmp_path / "report/sweep.json").read_text())["jobs"]
    ]
    assert statuses == ["done", "stopped", "not run"]
    assert "0.600" in out and "resume=auto" in err
    assert started(tmp_path) == ["start 0", "end 0", "start 9"]


class EndlessProcess(InstantProcess):
    """Runs until it is stopped."""

    def __init__(self) -> None:
        super().__init__(0, [])
        self.stopped = False

    def poll(self) -> int | None:
        return 1 if self.stopped else None

    def stop(self) -> None:
        self.stopped = True


class SignalledRoom(Room):
    """A signal arrives when the process exists, and nobody but `start` knows it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(2)
        self.number = number
        self.started: list[EndlessProcess] = []

    def start(self, overrides: Sequence[str], directory: Path) -> EndlessProcess:
        self.started.append(EndlessProcess())
        os.kill(os.getpid(), self.number)
        return self.started[-1]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_job_starts_leaves_none_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    room = SignalledRoom(number)
    with pytest.raises(KeyboardInterrupt):
        Sweep(room, tmp_path, poll_s=0).run(jobs_of(tmp_path, "seed=0"))
    assert [process.stopped for process in room.started] == [True]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_jobs_run_side_by_side_as_far_as_there_is_room(tmp_path: Path, size: int) -> None:
    room = Room(size)
    outcomes = Sweep(room, tmp_path, poll_s=0).run(jobs_of(tmp_path, "seed=range(0,7)"))
    assert len(outcomes) == 7 and set(outcomes.values()) == {Outcome("done")}
    assert room.most == max(size, 1)  # one that fits nowhere starts alone, and says so itself


def test_the_report_lies_above_its_jobs_and_sweeps_of_other_names_apart(tmp_path: Path) -> None:
    first = jobs_of(tmp_path, "seed=0,1", "name=lr")[0]
    assert directory_of(first) == tmp_path / "quickstart/lr-sweep"
    assert first.directory.parent == directory_of(first)
    assert first.config.name == "lr-sweep/0-seed_0"
    deep = jobs_of(tmp_path, "seed=0,1", "name=tries/lr")[0]
    assert directory_of(deep) == tmp_path / "quickstart/tries/lr-sweep"


def test_what_watches_the_jobs_ends_them_when_it_fails(tmp_path: Path) -> None:
    stopped: list[int] = []

    class Watched(InstantProcess):
        def poll(self) -> int | None:
            if not stopped:
                raise RuntimeError("the cluster does not answer")
            return 1

        def stop(self) -> None:
            stopped.append(1)
            raise RuntimeError("nor now")

    class Lost(Room):
        def start(self, overrides: Sequence[str], directory: Path) -> InstantProcess:
            return Watched(3, self.running)

    with pytest.raises(RuntimeError, match="does not answer"):
        Sweep(Lost(2), tmp_path, poll_s=0).run(jobs_of(tmp_path, "seed=0,1"))
    assert len(stopped) == 2


def test_jobs_of_a_cluster_get_directories_that_are_the_same_everywhere(tmp_path: Path) -> None:
    configs = [job.config for job in jobs_of(tmp_path, "seed=0,1", "output_dir=outputs")]
    assert {c.output_dir for c in seen_from(LocalJobs(tmp_path), configs)} == {"outputs"}
    assert {c.output_dir for c in seen_from(Room(1), configs)} == {str(Path("outputs").resolve())}


def test_a_label_is_free_of_what_an_override_would_quote() -> None:
    swept = {"model.path": "/models/a b", "reward": "codescaler", "data.train_path": "x=1,y"}
    assert label(2, swept) == "2-path__models_a_b-reward_codescaler-train_path_x_1_y"
