"""The directory of a run: where each of its files lies. Scripts of users rely on these names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from conf.schema import Config
from rl.run.checkpoint import ADAPTER, HF


class RolloutFolder(StrEnum):
    """The folders of rollout files, by what the completions were sampled for."""

    TRAINING = "rollouts"
    PROBE = "probe"
    EVALUATION = "evaluation"


HELD_OUT = frozenset({RolloutFolder.PROBE, RolloutFolder.EVALUATION})  # nothing to train on


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run; nothing of them has to exist.

    >>> RunDirectory(Path("outputs/grpo/run")).rollout_file(RolloutFolder.PROBE, 5).as_posix()
    'outputs/grpo/run/probe/step-000005.parquet'
    """

    root: Path

    @classmethod
    def of(cls, cfg: Config) -> RunDirectory:
        """Where a run of `cfg` writes."""
        return cls(Path(cfg.output_dir) / cfg.experiment / cfg.name)

    @property
    def config(self) -> Path:
        """The configuration as it was used: JSON, which is YAML."""
        return self.root / "config.yaml"

    def config_until(self, step: int) -> Path:
        """The configuration of the steps up to this one, where later steps have another."""
        return self.root / f"config-until-step-{step:06d}.yaml"

    @property
    def inputs(self) -> Path:
        """The files and models that were read, by their content (`rl.run.start.contents`)."""
        return self.root / "inputs.json"

    def inputs_until(self, step: int) -> Path:
        """Those of the steps up to this one, where later steps read others."""
        return self.root / f"inputs-until-step-{step:06d}.json"

    @property
    def metrics(self) -> Path:
        """A JSON line for each step."""
        return self.root / "metrics.jsonl"

    @property
    def probe_log(self) -> Path:
        """A JSON line for each probe."""
        return self.root / "probe.jsonl"

    @property
    def timeline(self) -> Path:
        """Spans of the stages, for Perfetto."""
        return self.root / "timeline.json"

    @property
    def summary(self) -> Path:
        """The final figures (`rl.run.summary`); there once the run has ended well."""
        return self.root / "summary.json"

    def summary_until(self, step: int) -> Path:
        """The figures at the end of this step, after which the run went on all the same."""
        return self.root / f"summary-until-step-{step:06d}.json"

    @property
    def report(self) -> Path:
        """The report as a page."""
        return self.root / "report.html"

    @property
    def alarm_plot(self) -> Path:
        """The picture of reward, probe and alarm."""
        return self.root / "alarm.png"

    @property
    def finished(self) -> Path:
        """The configuration whose run a sweep has seen to end well."""
        return self.root / "finished.json"

    @property
    def checkpoints(self) -> Path:
        """The newest checkpoints (`rl.run.checkpoint`)."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint of the policy before an alarm that stops."""
        return self.root / "best"

    @property
    def hf(self) -> Path:
        """The final policy as safetensors."""
        return self.root / HF

    @property
    def adapter(self) -> Path:
        """The final adapters by themselves, where the run trains such."""
        return self.root / ADAPTER

    @property
    def profile(self) -> Path:
        """Traces of the ranks, of the steps that are profiled."""
        return self.root / "profile"

    @property
    def trackers(self) -> Path:
        """What trackers keep."""
        return self.root / "trackers"

    def rollouts(self, folder: RolloutFolder) -> Path:
        """One of the folders of rollout files."""
        return self.root / folder

    def rollout_file(self, folder: RolloutFolder, step: int, name: str = "") -> Path:
        """The rollouts of a step; `name` is that of a set of problems beside the main ones."""
        return self.rollouts(folder) / name / f"step-{step:06d}.parquet"

    def rollout_files(self, folder: RolloutFolder, last_step: int) -> list[Path]:
        """The rollout files that are there up to `last_step`, oldest first."""
        files = sorted(self.rollouts(folder).glob("step-*.parquet"))
        return [file for file in files if int(file.stem.removeprefix("step-")) <= last_step]
