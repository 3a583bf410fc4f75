"""A resumed run reads the problems and models of its first steps, not others under their paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema import Config
from rl.base.console import Console
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.run.checkpoint import commit, staging_directory
from rl.run.directory import RunDirectory
from rl.run.start.claim import begin, settle_resume
from rl.run.start.contents import contents_of, read_contents
from tests.settings import POLICY, shipped_config

pytestmark = pytest.mark.unit


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """A run of one step, of files and of a model of its own."""
    for split in ("train", "eval"):
        write_prompts(tmp_path / f"{split}.parquet", make_prompts(split, 4, 0))
    shutil.copytree(POLICY, tmp_path / "model")
    given = [f"++data.{split}_path={tmp_path / split}.parquet" for split in ("train", "eval")]
    given += ["data=parquet", f"model.path={tmp_path / 'model'}", f"output_dir={tmp_path}"]
    cfg = shipped_config(given)
    run = RunDirectory.of(cfg)
    begin(run, cfg)
    commit(staging_directory(run.checkpoints, 1), run.checkpoints, 1, keep=2)
    return [*given, "resume=auto"]


def resume(overrides: list[str]) -> Config:
    cfg = shipped_config(overrides)
    settle_resume(cfg, Console(), lambda: None)
    return cfg


def other_problems(directory: Path) -> None:
    write_prompts(directory / "train.parquet", make_prompts("train", 4, 1))


def other_model(directory: Path) -> None:
    file = directory / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "key"), [(other_problems, "data.train_path"), (other_model, "model.path")]
)
def test_another_file_under_the_same_path_is_refused_unless_it_is_allowed(
    tmp_path: Path, overrides: list[str], capsys: pytest.CaptureFixture[str], change, key: str
):
    change(tmp_path)
    with pytest.raises(UserError) as caught:
        resume(overrides)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{key}: {tmp_path}") and f"resume_allow=[{key}]" in line
    assert "put it back" in line
    cfg = resume([*overrides, f"resume_allow=[{key}]"])
    assert f"the content of {key}" in " ".join(capsys.readouterr().out.split())
    run = RunDirectory.of(cfg)
    before = read_contents(run.inputs)
    begin(run, cfg)
    assert read_contents(run.inputs_until(1)) == before != read_contents(run.inputs)
    resume(overrides)  # which is the content of the newest steps now


def test_the_same_files_and_a_run_of_before_are_resumed(tmp_path: Path, overrides: list[str]):
    run = RunDirectory.of(resume(overrides))
    assert set(read_contents(run.inputs)) == {
        *("data.train_path", "data.eval_path", "model.path", "reward.model")
    }
    begin(run, shipped_config(overrides))
    assert not list(run.root.glob("inputs-until*"))
    run.inputs.unlink()
    other_problems(tmp_path)
    begin(run, resume(overrides))
    assert read_contents(run.inputs) == contents_of(shipped_config(overrides))


@pytest.mark.parametrize("text", ["", "[]", '{"model.path": 3}', "[" * 200_000])
def test_a_record_that_is_none_is_refused(overrides: list[str], text: str):
    RunDirectory.of(shipped_config(overrides)).inputs.write_text(text)
    with pytest.raises(UserError, match=r"inputs\.json, which says what the steps so far"):
        resume(overrides)


def test_a_whole_loop_makes_its_models_and_has_none_on_record():
    assert contents_of(shipped_config(["experiment=whole_loop"])) == {}
    assert json.dumps(contents_of(shipped_config()))
