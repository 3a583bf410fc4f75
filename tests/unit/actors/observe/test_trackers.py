"""Trackers: what they are told, where they write, and what they never see."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.observe import trackers
from actors.observe.trackers import MlflowTracker, TensorBoardTracker, WandbTracker, tracked_run
from actors.plan.checks.inputs import check_inputs
from conf.errors import UserError
from conf.validate import ConfigError
from rl.run.rollouts import RolloutRow, rollout_rows
from rl.types import StepReport
from tests.settings import run_config, shipped_config
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

ENVIRONMENT = ["WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"]
ENVIRONMENT += ["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def report(step: int) -> StepReport:
    return StepReport(step=step, metrics={"reward/mean": step / 2, "eval/pass@1": 0.25})


def completions(step: int = 2) -> list[RolloutRow]:
    judged = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0), (False, True))
    return list(rollout_rows(step, [judged], [np.array([-0.5, 0.5], np.float32)]))


# --- choosing them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [("[]", ()), ("wandb", ("wandb",)), ("[mlflow,tensorboard]", ("mlflow", "tensorboard"))],
)
def test_trackers_are_one_several_or_none(given: str, found: tuple[str, ...]):
    assert run_config([f"++trackers={given}"]).trackers == found


def test_a_wrong_name_is_answered_with_the_nearest_valid_one():
    with pytest.raises(ConfigError) as caught:
        run_config(["++trackers=[mlflow,tensorbord]"])
    assert str(caught.value) == (
        "trackers: ['mlflow', 'tensorbord'] is not a list such as [a,b] of tensorboard, wandb, "
        "mlflow (nearest: tensorboard)"
    )


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(
        trackers.importlib.util,
        "find_spec",
        lambda name, *package: None if name == "wandb" else find(name, *package),
    )
    cfg = shipped_config(["++trackers=[wandb]"])
    with pytest.raises(UserError) as caught:
        check_inputs(cfg)
    assert str(caught.value) == (
        "trackers: wandb is not installed (pip install wandb, or leave it out of trackers=[...])"
    )


def test_a_folder_that_wandb_has_left_behind_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not trackers._is_installed("left_behind")
    (tmp_path / "left_behind/__init__.py").touch()
    trackers.importlib.invalidate_caches()
    assert trackers._is_installed("left_behind")


def test_what_a_tracker_sees_of_a_run_has_no_value_of_an_environment_variable(tmp_path: Path):
    cfg = run_config(["++ray.env={PROXY: user_at_host}"])
    run = tracked_run(cfg, tmp_path)
    assert "user_at_host" not in str(run)
    assert run.config["ray"]["env"] == {"PROXY": "(not shown)"}
    assert run.config["policy"]["lr"] == cfg.policy.lr


# --- TensorBoard, the real one -----------------------------------------------------------------


def test_tensorboard_shows_each_step_once_after_a_resumed_run(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 - slow
        EventAccumulator,
    )

    run = tracked_run(run_config(), tmp_path)
    first = TensorBoardTracker(run)
    first.forget_after(0)
    for step in (1, 2, 3):
        first.write(report(step))
    first.close(ok=False)
    resumed = TensorBoardTracker(run)
    resumed.forget_after(2)
    resumed.write(report(3))
    resumed.close(ok=True)
    seen = EventAccumulator(str(tmp_path / "trackers/tensorboard"))
    seen.Reload()
    assert seen.Tags()["scalars"] == ["reward/mean", "eval/pass@1"]
    assert [(s.step, s.value) for s in seen.Scalars("reward/mean")] == [(1, 0.5), (2, 1), (3, 1.5)]


# --- W&B and MLflow, faked ---------------------------------------------------------------------


class FakeWandb(ModuleType):
    """The part of `wandb` that is used."""

    Settings = SimpleNamespace
    Table = SimpleNamespace

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.exit_codes: list[int] = []

    def init(self, **arguments: Any) -> FakeWandb:
        self.inits.append(arguments)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, metrics: dict[str, float]) -> None:
        self.logged.append(metrics)

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_offline_in_the_run_directory_and_a_resumed_run_is_the_same_run(
    wandb: FakeWandb, tmp_path: Path
):
    run = tracked_run(run_config(["name=s1"]), tmp_path)
    for step, ok in ((1, False), (2, True)):
        tracker = WandbTracker(run)
        tracker.forget_after(step - 1)
        tracker.write(report(step))
        tracker.close(ok=ok)
    first, second = wandb.inits
    assert (first["mode"], first["dir"]) == ("offline", str(tmp_path / "trackers"))
    assert (first["group"], first["name"]) == ("quickstart", "quickstart/s1")
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert wandb.logged[1] == {"step": 2, "reward/mean": 1.0, "eval/pass@1": 0.25}
    assert wandb.exit_codes == [1, 0]


def test_wandb_shows_completions_of_a_step_in_a_table(wandb: FakeWandb, tmp_path: Path):
    tracker = WandbTracker(tracked_run(run_config(), tmp_path))
    tracker.forget_after(0)
    tracker.show(completions())
    (logged,) = wandb.logged
    table: Any = logged["rollouts"]
    assert logged["step"] == 2
    rows = [dict(zip(table.columns, values, strict=True)) for values in table.data]
    assert [(row["sample_idx"], row["reward"], row["advantage"]) for row in rows] == [
        (0, 0.0, -0.5),
        (1, 1.0, 0.5),
    ]
    assert [row["verdict"] for row in rows] == ["WRONG_ANSWER", "PASSED"]
    assert all(type(row["verdict"]) is str for row in rows)
    assert rows[1]["question"] == "question 0" and "print(1)" in rows[1]["text"]


def test_a_key_in_the_environment_takes_wandb_online_and_is_handed_to_nobody(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key")
    tracker = WandbTracker(tracked_run(run_config(), tmp_path))
    tracker.forget_after(0)
    assert wandb.inits[0]["mode"] == "online"
    assert "a-secret-key" not in str(wandb.inits)
    assert all("a-secret-key" not in f.read_text() for f in tmp_path.rglob("*") if f.is_file())


class FakeMlflow:
    """The part of `mlflow.MlflowClient` that is used; one store for all clients."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.experiments: dict[str, str | None] = {}
        self.runs: list[str] = []
        self.metrics: list[tuple[str, str, float, int]] = []
        self.params: dict[str, str] = {}
        self.ends: list[tuple[str, str]] = []
        self.tables: dict[str, dict[str, list[Any]]] = {}

    def client(self, tracking_uri: str) -> FakeMlflow:
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str, artifacts: str | None) -> str:
        self.experiments[name] = artifacts
        return name

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        self.runs.append(f"{experiment_id}/{run_name}/{len(self.runs)}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.runs[-1]))

    def update_run(self, run_id: str, status: str) -> None:
        assert (run_id in self.runs, status) == (True, "RUNNING")

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100, "MLflow refuses more at once"
        self.params |= dict(params)
        self.metrics += [(run_id, name, value, step) for name, value, _, step in metrics]

    def log_table(self, run_id: str, data: dict[str, list[Any]], artifact_file: str) -> None:
        assert run_id in self.runs
        self.tables[artifact_file] = data

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ends.append((run_id, status))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake, entities = FakeMlflow(), ModuleType("mlflow.entities")
    module = ModuleType("mlflow")
    vars(module).update(MlflowClient=fake.client, entities=entities)
    vars(entities).update(Metric=lambda *fields: fields, Param=lambda *fields: fields)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return fake


def test_mlflow_writes_below_the_run_directory_and_a_resumed_run_is_the_same_run(
    mlflow: FakeMlflow, tmp_path: Path
):
    cfg = run_config()
    run = tracked_run(cfg, tmp_path)
    for step, ok in ((1, False), (2, True)):
        tracker = MlflowTracker(run)
        tracker.forget_after(step - 1)
        tracker.write(report(step))
        tracker.close(ok=ok)
    assert mlflow.uris == [f"sqlite:///{tmp_path}/trackers/mlflow.db"] * 2
    assert mlflow.experiments == {"quickstart": f"file://{tmp_path}/trackers/mlflow_artifacts"}
    run_id = "quickstart/run/0"
    assert mlflow.runs == [run_id]
    assert mlflow.metrics[2:] == [
        (run_id, "reward/mean", 1.0, 2),
        (run_id, "eval/pass_at_1", 0.25, 2),
    ]
    assert mlflow.ends == [(run_id, "FAILED"), (run_id, "FINISHED")]
    assert mlflow.params["policy.lr"] == str(cfg.policy.lr)
    assert json.loads((tmp_path / "trackers/mlflow.json").read_text()) == {"run_id": run_id}


def test_mlflow_shows_completions_in_a_file_of_each_step(mlflow: FakeMlflow, tmp_path: Path):
    tracker = MlflowTracker(tracked_run(run_config(), tmp_path))
    tracker.forget_after(0)
    tracker.show(completions(2))
    tracker.show(completions(3))
    assert [*mlflow.tables] == ["rollouts/step-000002.json", "rollouts/step-000003.json"]
    assert mlflow.tables["rollouts/step-000003.json"]["reward"] == [0.0, 1.0]


def test_completions_need_a_tracker_that_shows_them():
    assert run_config(["++tracker_rows=4", "++trackers=[mlflow]"]).tracker_rows == 4
    with pytest.raises(ConfigError, match=r"tracker_rows: .*wandb and mlflow alone"):
        run_config(["++tracker_rows=4", "++trackers=[tensorboard]"])


def test_mlflow_goes_to_the_server_that_the_environment_names(
    mlflow: FakeMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    tracker = MlflowTracker(replace(tracked_run(run_config(), tmp_path), name="s2"))
    tracker.forget_after(0)
    assert mlflow.uris == ["http://mlflow:5000"]
    assert mlflow.experiments == {"quickstart": None}  # artifacts are the server's business
