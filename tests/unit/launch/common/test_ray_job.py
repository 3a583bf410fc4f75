"""In a Ray job outputs stay, and the code that is needed is uploaded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

from conf.validate import to_dict
from launch.common.cli import main
from launch.common.compose import compose_config
from launch.sweeps.command import run_sweep

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As in a job with a working directory; returns the place for outputs."""
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"working_dir": "gcs://tree.zip"}}))
    monkeypatch.setenv("CODESCALER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_outputs_of_a_job_lie_outside_the_copy_that_ray_deletes(in_a_job: Path) -> None:
    config = compose_config(["++loop.export_dir=models"])
    assert config.output_dir == str(in_a_job / "outputs")
    assert config.loop.cache_dir == str(in_a_job / "outputs/cache")
    assert config.loop.export_dir == str(in_a_job / "models")
    assert compose_config(["output_dir=/shared/runs"]).output_dir == "/shared/runs"


def test_the_default_place_is_below_the_home_of_the_user(
    in_a_job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODESCALER_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert compose_config([]).output_dir == "/home/me/codescaler/outputs"


@pytest.mark.parametrize("job", [None, "{}", '{"runtime_env": {"env_vars": {}}}'])
def test_elsewhere_outputs_are_relative_to_the_current_directory(
    monkeypatch: pytest.MonkeyPatch, job: str | None
) -> None:
    monkeypatch.delenv(JOB, raising=False)
    if job is not None:  # a job without an uploaded tree works where the cluster was started
        monkeypatch.setenv(JOB, job)
    assert compose_config([]).output_dir == "outputs"


def test_hydras_records_lie_in_the_run_directory_of_a_job_too(in_a_job: Path) -> None:
    seen: list[str] = []
    assert main(lambda config: seen.append(config.output_dir), ["seed=3"], sweep=run_sweep) == 0
    assert seen == [str(in_a_job / "outputs")]
    assert (in_a_job / "outputs/quickstart/run/.hydra/overrides.yaml").is_file()
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password"]
)
def test_secrets_are_refused_in_the_configuration_and_not_repeated(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(lambda _: 0, [f"ray.env.{name}=xyzzy"], sweep=run_sweep) == 2
    err = capsys.readouterr().err
    assert name in err and "ray.env_from" in err
    assert "xyzzy" not in err


def test_names_of_secrets_are_stored_and_values_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    config = compose_config(["++ray.env_from=[HF_TOKEN]", "++ray.env.TOKENIZERS_PARALLELISM=true"])
    stored = json.dumps(to_dict(config))
    assert "HF_TOKEN" in stored and "hf_secret" not in stored


def test_what_a_run_needs_is_uploaded_and_nothing_large() -> None:
    ignored = get_excludes_from_ignore_files(TREE, include_gitignore=True)

    def uploaded(path: str) -> bool:
        """Ray does not look into a folder that is ignored."""
        parts = Path(path).parts
        ways = [TREE.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
        return not any(match(way) for way in ways for match in ignored)

    listed = subprocess.run(
        ["git", "ls-files", "actors", "assets", "conf", "launch", "reward", "rl"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    )
    files = listed.stdout.split()
    assert "conf/data/minipy.yaml" in files
    assert [path for path in files if not uploaded(path)] == []
    assert sum((TREE / path).stat().st_size for path in files) < 32 << 20
    for folder in (".git", ".venv", "outputs", "models", "data", "tests", "docs"):
        assert not uploaded(f"{folder}/any/file"), folder
        assert any(match(TREE / folder) for match in ignored), f"Ray would walk through {folder}"
