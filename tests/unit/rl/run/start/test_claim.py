"""A run takes a directory of its own; what an earlier one has left is kept, whatever is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.validate import to_dict
from rl.base.console import Console
from rl.run.checkpoint import commit, staging_directory
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.start.claim import begin, claimed_run, held_of_run, move_aside, remove_staged
from rl.run.start.lock import locked
from tests.settings import shipped_config

pytestmark = pytest.mark.unit

Files = dict[str, str]


class Tries:
    """Commands that are typed in one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = folder / "quickstart"
        self._folder = folder
        self._capsys = capsys
        self.checked = 0

    def run(self, name: str, steps: int = 0, checkpoint: int = 0, *overrides: str) -> RunDirectory:
        """What a run leaves that has taken steps."""
        run = RunDirectory(self.root / name)
        run.root.mkdir(parents=True)
        run.config.write_text(json.dumps(to_dict(shipped_config(overrides))))
        run.metrics.write_text("".join(f'{{"step": {n + 1}}}\n' for n in range(steps)))
        if checkpoint:
            staged = staging_directory(run.checkpoints, checkpoint)
            commit(staged, run.checkpoints, checkpoint, keep=2)
        return run

    @contextmanager
    def claim(self, *overrides: str, keep: tuple[str, ...] = ()) -> Iterator[str]:
        cfg = shipped_config([f"output_dir={self._folder}", *overrides])
        with claimed_run(cfg, Console(), self._check, keep) as name:
            yield name

    def claimed(self, *overrides: str) -> tuple[str, str]:
        """The name that a command takes, and what it says."""
        with self.claim(*overrides) as name:
            pass
        return name, self._capsys.readouterr().out.replace(f"{self._folder}/", "")

    def _check(self) -> None:
        self.checked += 1

    def files(self) -> Files:
        """Everything but the locks."""
        files = [path for path in self.root.rglob("*") if path.is_file() and path.name != ".lock"]
        return {str(path.relative_to(self.root)): path.read_text() for path in files}


@pytest.fixture
def tries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tries:
    return Tries(tmp_path, capsys)


def test_a_run_that_nobody_named_takes_the_next_free_name(tries: Tries) -> None:
    assert tries.claimed() == ("run", "")
    assert tries.claimed() == ("run", "")  # it took no step
    tries.run("run-2", steps=3)
    assert tries.claimed() == ("run", "")
    tries.run("run", steps=0)
    (tries.root / "run/summary.json").write_text("{}")
    said = "==> name  quickstart/run holds the summary of an earlier run; this one is name=run-3\n"
    before = tries.files()
    assert tries.claimed() == ("run-3", said)
    assert tries.files() == before


def test_a_run_with_a_name_is_refused_where_there_are_steps(tries: Tries) -> None:
    tries.run("gentle", steps=60)
    before = tries.files()
    with pytest.raises(UserError) as caught:
        tries.claimed("name=gentle")
    assert str(caught.value) == (
        f"name: {tries.root}/gentle holds 60 steps of an earlier run; give resume=auto to go on "
        "with it, another name=, or overwrite=true to move it aside"
    )
    assert tries.files() == before


@pytest.mark.parametrize("name", ["run", "gentle"])
def test_overwrite_moves_the_earlier_run_aside_when_the_new_one_is_good(
    tries: Tries, name: str
) -> None:
    tries.run(name, steps=1, checkpoint=1)
    before = tries.files()
    took, said = tries.claimed(f"name={name}", "overwrite=true")
    moved = re.fullmatch(
        rf"==> overwrite  quickstart/{name} held 1 step of an earlier run; they are kept in "
        rf"quickstart/({name}\.old-\d{{8}}-\d{{6}})\n",
        said,
    )
    assert took == name and moved is not None and tries.checked == 1
    assert tries.files() == {path.replace(name, moved[1], 1): before[path] for path in before}
    assert tries.claimed(f"name={name}", "overwrite=true") == (name, "")


def test_nothing_is_moved_for_a_run_that_is_refused(tries: Tries) -> None:
    tries.run("run", steps=2)
    before = tries.files()

    def refuse() -> None:
        raise UserError("data.train_path: no such file")

    for override in ("overwrite=true", "resume=auto"):
        cfg = shipped_config([f"output_dir={tries.root.parent}", override])
        with (
            pytest.raises(UserError, match="no such file"),
            claimed_run(cfg, Console(), refuse),
        ):
            pass
    assert tries.files() == before


@pytest.mark.parametrize("override", ["resume=never", "resume=auto", "overwrite=true"])
def test_while_a_run_goes_on_no_other_starts_beside_it(tries: Tries, override: str) -> None:
    with tries.claim(), pytest.raises(UserError, match=r"run is in use by process \d+ on"):
        tries.claimed(override)


def test_a_run_inside_another_keeps_the_outer_one_where_it_is(tries: Tries) -> None:
    tries.run("tries", steps=1)
    with tries.claim("name=tries/first"), pytest.raises(UserError, match="in use by"):
        tries.claimed("name=tries", "overwrite=true")


def test_resume_goes_on_where_there_is_a_checkpoint_and_lists_what_differs(tries: Tries) -> None:
    tries.run("run", steps=3, checkpoint=2)
    before = tries.files()
    assert tries.claimed("resume=auto") == ("run", "")
    said = (
        "==> resume  differs from the steps so far: algorithm.num_steps 60 -> 90, "
        "checkpoint.every 0 -> 10\n"
    )
    more = ("algorithm.num_steps=90", "checkpoint.every=10")
    assert tries.claimed("resume=auto", *more) == ("run", said)
    with pytest.raises(UserError, match=r"resume_allow=\[seed\]"):
        tries.claimed("resume=auto", "seed=5")
    assert tries.files() == before


def test_resume_without_a_checkpoint_starts_anew_and_keeps_what_was_there(tries: Tries) -> None:
    said = "==> resume  quickstart/run has no checkpoint; the run starts anew\n"
    assert tries.claimed("resume=auto") == ("run", said)
    tries.run("old", steps=3)
    _, said = tries.claimed("resume=auto", "name=old")
    assert "old held 3 steps of an earlier run and no checkpoint" in said
    assert "(checkpoint.every, checkpoint.minutes)" in said
    assert "the run starts anew" in said
    assert list(tries.root.glob("old.old-*/metrics.jsonl"))
    assert not list((tries.root / "old").iterdir())


def test_what_belongs_to_the_command_itself_stays_when_the_rest_is_moved(tries: Tries) -> None:
    (tries.run("run", steps=1).root / ".hydra").mkdir()
    with tries.claim("overwrite=true", keep=(".hydra",)):
        pass
    assert {path.name for path in (tries.root / "run").iterdir()} == {".hydra", ".lock"}


def test_two_moves_in_a_second_are_two_directories(tries: Tries) -> None:
    for _ in range(2):
        root = tries.root / "run"
        with locked(root, print):
            (root / "file").touch()
            move_aside(root, print)
    assert len(list(tries.root.glob("run.old-*/file"))) == 2


def test_steps_are_seen_in_metrics_rollouts_and_checkpoints(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.config.touch()
    run.metrics.touch()
    run.rollouts(RolloutFolder.EVALUATION).mkdir()
    run.rollout_file(RolloutFolder.EVALUATION, 0).touch()
    staging_directory(run.checkpoints, 9)
    assert held_of_run(tmp_path) == ""
    run.rollouts(RolloutFolder.TRAINING).mkdir()
    run.rollout_file(RolloutFolder.TRAINING, 1).touch()
    assert held_of_run(tmp_path) == "1 step of an earlier run"
    commit(staging_directory(run.checkpoints, 4), run.checkpoints, 4, keep=2)
    assert held_of_run(tmp_path) == "4 steps of an earlier run"
    run.metrics.write_text('{"step": 1}\n' * 5)
    assert held_of_run(tmp_path) == "5 steps of an earlier run"


def test_a_run_that_goes_on_keeps_the_configuration_of_its_earlier_steps(tries: Tries) -> None:
    run = tries.run("run", 10, 10)
    run.report.touch()
    run.summary.write_text(json.dumps({"steps": 10}))
    begin(run, shipped_config(["resume=auto"]))  # differs in nothing
    assert not list(run.root.glob("config-*"))
    assert not run.summary.exists() and not run.report.exists()
    assert (run.root / "summary-until-step-000010.json").is_file()
    for num_steps in (90, 91):  # what was tried with 90 made no step that stays
        begin(run, shipped_config(["resume=auto", f"algorithm.num_steps={num_steps}"]))
    configs = run.root / "config-until-step-000010.yaml", run.config
    assert [json.loads(c.read_text())["algorithm"]["num_steps"] for c in configs] == [60, 91]


@pytest.mark.parametrize("override", ["resume=never", "resume=auto"])
def test_steps_that_a_run_does_not_go_on_from_are_never_begun_over(
    tries: Tries, override: str
) -> None:
    run = tries.run("run", steps=3)
    before = tries.files()
    with pytest.raises(UserError, match="holds 3 steps"):
        begin(run, shipped_config([override]))
    assert tries.files() == before


def test_what_a_killed_run_was_still_writing_is_removed(tmp_path: Path) -> None:
    half = [tmp_path / "checkpoints/.step-000004.partial", tmp_path / ".hf.partial"]
    for directory in half:
        directory.mkdir(parents=True)
        (directory / "weights").touch()
    half.append(tmp_path / "report.html.partial")
    half[-1].touch()
    whole = tmp_path / "checkpoints/step-000002"
    whole.mkdir()
    assert sorted(remove_staged(tmp_path)) == sorted(half)
    assert not any(path.exists() for path in half)
    assert whole.is_dir()
    assert remove_staged(tmp_path) == []
