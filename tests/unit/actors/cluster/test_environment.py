"""Secrets reach actors by name, and are written nowhere."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray
from ray.cloudpickle import cloudpickle

from actors.cluster.cluster import cluster
from actors.cluster.environment import inherited, setting
from conf.errors import UserError
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `cluster` gives to Ray."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", raising=False)
    return given


def test_a_named_variable_reaches_every_process_but_not_what_ray_shows(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    config = run_config(["++ray.env_from=[HF_TOKEN]", "++ray.env.FOO=1"])
    with cluster(config.ray, "name"):
        pass
    assert options["runtime_env"]["env_vars"] == {"FOO": "1"}
    hook = options["runtime_env"]["worker_process_setup_hook"]
    assert hook.__name__ == "set_inherited_variables"  # what Ray shows of it
    monkeypatch.delenv("HF_TOKEN")
    cloudpickle.loads(cloudpickle.dumps(hook))()  # as in the process of an actor
    assert os.environ["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in repr(config) + repr(options)


def test_without_names_there_is_no_hook(options: dict[str, Any]) -> None:
    with cluster(run_config().ray, "name"):
        pass
    assert options["runtime_env"] == {"env_vars": {}}


def test_variables_that_are_not_set_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"^ray\.env_from: HF_TOKEN, WANDB_API_KEY not set"):
        inherited(["THERE", "HF_TOKEN", "WANDB_API_KEY"])
    assert inherited(["THERE"]) == {"THERE": "1"}
    assert inherited(None) == {}


def test_the_function_keeps_the_values_of_its_making() -> None:
    values = {"A_VARIABLE_OF_THIS_TEST": "1"}
    function = setting(values)
    values.clear()
    function()
    assert os.environ.pop("A_VARIABLE_OF_THIS_TEST") == "1"


def test_in_a_job_the_runtime_environment_of_the_job_is_kept(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with cluster(run_config(["++ray.env.FOO=1"]).ray, "name"):
        pass
    assert options["address"] == "10.0.0.1:6379"
    assert "working_dir" not in options["runtime_env"]
    assert os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1"  # a variable that both set is ours


def test_the_address_of_the_dashboard_is_not_one_to_join(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match="ray job submit"), cluster(run_config().ray, "name"):
        pass
    assert not options
