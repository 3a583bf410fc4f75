"""Trackers: TensorBoard, Weights & Biases and MLflow as sinks of a run's metrics.

Each is imported only when it is chosen, writes below `trackers/` of the run directory, and needs no
network. Secrets (`WANDB_API_KEY`, `MLFLOW_TRACKING_TOKEN`, ...) are read by the libraries from the
environment; nothing here takes, stores or prints one.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from conf.errors import UserError
from conf.schema import Config
from conf.validate import to_dict
from rl.base.files import replace_file
from rl.metrics import Sink
from rl.run.directory import RunDirectory
from rl.run.rollouts import RolloutRow
from rl.types import StepReport

PROJECT = "codescaler-ray"  # of W&B, unless WANDB_PROJECT names another
MLFLOW_PARAMS = 100  # that MLflow takes at once
# Columns of a row that a table of completions has.
SHOWN = ("step", "prompt_id", "sample_idx", "question", "text", "reason", "finish", "num_tokens")
SHOWN += ("judge", "verdict", "score", "reward", "advantage")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What a tracker receives of a run, besides its metrics."""

    experiment: str
    name: str
    directory: Path  # of all trackers of the run
    config: Mapping[str, Any]  # nested; without the values of environment variables


def tracked_run(cfg: Config, directory: Path) -> TrackedRun:
    """The run that trackers see; values of `ray.env` may be secrets and stay here."""
    hidden = dict.fromkeys(cfg.ray.env, "(not shown)")
    config = to_dict(replace(cfg, ray=replace(cfg.ray, env=hidden)))
    trackers = RunDirectory(directory).trackers
    return TrackedRun(experiment=cfg.experiment, name=cfg.name, directory=trackers, config=config)


def check_trackers(chosen: Sequence[str]) -> None:
    """Prove that the package of each chosen tracker is there.

    Raises:
        UserError: with a line for each that is not, and the command that installs it.
    """
    missing = [name for name in chosen if not _is_installed(name)]
    if missing:
        raise UserError(
            "\n".join(
                f"trackers: {name} is not installed (pip install {name}, or leave it out of "
                "trackers=[...])"
                for name in missing
            )
        )


def _is_installed(package: str) -> bool:
    """Whether there is code; a folder such as the `wandb/` that W&B leaves behind has none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


@runtime_checkable
class RowSink(Protocol):
    """A sink that shows completions too."""

    def show(self, rows: Sequence[RolloutRow]) -> None:
        """Show completions of one step in a table."""
        ...


def columns_of(rows: Sequence[RolloutRow]) -> dict[str, list[Any]]:
    """The columns of a table of completions, with plain values."""
    return {name: [_plain(getattr(row, name)) for row in rows] for name in SHOWN}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a row holds
    return str(value) if isinstance(value, str) else value


class TensorBoardTracker:
    """Event files in `trackers/tensorboard/`."""

    def __init__(self, run: TrackedRun) -> None:
        self._dir = run.directory / "tensorboard"
        self._writer: Any = None

    def forget_after(self, step: int) -> None:
        """Open a new event file, whose readers drop what older ones say of later steps."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - only when chosen

        if self._writer is not None:
            self._writer.close()
        self._writer = SummaryWriter(str(self._dir), purge_step=step + 1 if step else None)

    def write(self, report: StepReport) -> None:
        """Add a scalar for each metric."""
        for name, value in report.metrics.items():
            self._writer.add_scalar(name, value, report.step)
        self._writer.flush()

    def close(self, *, ok: bool) -> None:
        """Close the event file."""
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run; offline below `trackers/wandb/` unless the environment has a key."""

    def __init__(self, run: TrackedRun) -> None:
        self._about = run
        self._run: Any = None

    def forget_after(self, step: int) -> None:
        """Begin a run, or go on with that of the run directory.

        Steps that are taken again are shown once more beside their first values: W&B keeps a
        history as it was written.
        """
        if self._run is not None:
            return
        import wandb  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  # optional

        about = self._about
        online = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        about.directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=about.experiment,
            name=f"{about.experiment}/{about.name}",
            id=_run_id(about, "wandb", lambda: secrets.token_hex(8)),
            resume="allow",
            dir=str(about.directory),
            mode=os.environ.get("WANDB_MODE", online),
            config=dict(about.config),
            # The command line, which W&B would keep, may hold what `ray.env` hides.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, x_disable_meta=True
            ),
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, report: StepReport) -> None:
        """Log all metrics of the step at once."""
        self._run.log({"step": report.step, **report.metrics})

    def show(self, rows: Sequence[RolloutRow]) -> None:
        """Log a table of the step."""
        import wandb  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  # optional

        columns = columns_of(rows)
        table: Any = wandb.Table(columns=[*columns], data=[*zip(*columns.values(), strict=True)])
        self._run.log({"step": rows[0].step, "rollouts": table})

    def close(self, *, ok: bool) -> None:
        """Mark the run as finished or failed."""
        self._run.finish(exit_code=0 if ok else 1)


class MlflowTracker:
    """An MLflow run, in `trackers/mlflow.db` unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, run: TrackedRun) -> None:
        self._about = run
        self._client: Any = None
        self._run_id = ""

    def forget_after(self, step: int) -> None:
        """Begin a run, or go on with that of the run directory."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        logging.getLogger("alembic").setLevel(logging.WARNING)  # tells of each table it creates
        from mlflow import MlflowClient  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        local = self._about.directory.resolve()
        local.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        self._run_id = _run_id(self._about, "mlflow", lambda: self._begin(local, uri))
        self._client.update_run(self._run_id, status="RUNNING")

    def _begin(self, local: Path, uri: str) -> str:
        """Create a run in the experiment of this name, with the configuration as parameters."""
        from mlflow.entities import Param  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        client, about = self._client, self._about
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", about.experiment)
        found = client.get_experiment_by_name(name)
        artifacts = (local / "mlflow_artifacts").as_uri() if uri.startswith("sqlite:") else None
        experiment_id = found.experiment_id if found else client.create_experiment(name, artifacts)
        run_id = client.create_run(experiment_id, run_name=about.name).info.run_id
        params = [Param(key, value) for key, value in _flat(about.config).items()]
        for start in range(0, len(params), MLFLOW_PARAMS):
            client.log_batch(run_id, params=params[start : start + MLFLOW_PARAMS])
        return run_id

    def write(self, report: StepReport) -> None:
        """Log all metrics of the step at once; `@` is not allowed in a name."""
        from mlflow.entities import Metric  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(name.replace("@", "_at_"), value, now_ms, report.step)
            for name, value in report.metrics.items()
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def show(self, rows: Sequence[RolloutRow]) -> None:
        """Log a table of the step, a file of its own: one of all steps would be written anew."""
        file = f"rollouts/step-{rows[0].step:06d}.json"
        self._client.log_table(self._run_id, columns_of(rows), file)

    def close(self, *, ok: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._run_id, "FINISHED" if ok else "FAILED")


TRACKERS: Mapping[str, Callable[[TrackedRun], Sink]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def _run_id(run: TrackedRun, tracker: str, make: Callable[[], str]) -> str:
    """The tracker's name for this run: the one that the run directory has, or a new one.

    Each tracker has a file of its own, because they write from threads of their own.
    """
    path = run.directory / f"{tracker}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="ascii"))["run_id"]
    run_id = make()
    replace_file(path, json.dumps({"run_id": run_id}) + "\n")
    return run_id


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves by dotted path.

    >>> _flat({"policy": {"lr": 0.1}, "seed": 0})
    {'policy.lr': '0.1', 'seed': '0'}
    """
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
