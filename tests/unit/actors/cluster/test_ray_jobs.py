"""Jobs on a cluster: how many fit, what is submitted, how they end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from actors.cluster import ray_jobs
from actors.cluster.ray_jobs import RayJobs, fit_together
from conf.errors import EngineError
from tests.settings import run_config

pytestmark = pytest.mark.unit


class Client:
    """Of one cluster; notes what is asked of it."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.details = SimpleNamespace(status=JobStatus.PENDING, driver_exit_code=None)

    def submit_job(self, **request: Any) -> str:
        self.submitted.append(request)
        return "raysubmit_1"

    def get_job_info(self, job: str) -> Any:
        assert job == "raysubmit_1"
        return self.details

    def get_job_logs(self, job: str) -> str:
        return "step 1\nerror: EngineError: rollout-0 died\n"

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, client: Client) -> RayJobs:
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", lambda address: client)
    return RayJobs("auto", "launch/train.py", {"working_dir": "gcs://tree.zip"})


def test_jobs_fit_as_long_as_the_nodes_hold_the_actors_of_all() -> None:
    config = run_config()  # 1.5 CPUs
    nodes = [{"CPU": 2.0}, {"CPU": 2.0, "memory": 1e9}]
    assert fit_together([config], nodes[:1])
    assert not fit_together([config, config], nodes[:1])
    assert fit_together([config, config], nodes)
    assert not fit_together([config], [])


def test_a_job_is_submitted_as_one_types_it_with_the_code_of_the_sweep(
    jobs: RayJobs, client: Client
) -> None:
    overrides = ["seed=0", "++name='run-sweep/0-seed_0'"]
    jobs.start(overrides, Path("/out/quickstart/run-sweep/0-seed_0"))
    assert client.submitted == [
        {
            "entrypoint": """python launch/train.py seed=0 '++name='"'"'run-sweep/0-seed_0'"'"''""",
            "runtime_env": {"working_dir": "gcs://tree.zip"},
            "metadata": {"job_name": "run-sweep/0-seed_0"},
        }
    ]


@pytest.mark.parametrize(
    ("status", "exit_code", "code"),
    [
        (JobStatus.PENDING, None, None),
        (JobStatus.RUNNING, None, None),
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 1),
    ],
)
def test_the_status_of_a_ray_job_becomes_an_exit_code(
    jobs: RayJobs, client: Client, status: JobStatus, exit_code: int | None, code: int | None
) -> None:
    job = jobs.start([], Path("/out"))
    client.details = SimpleNamespace(status=status, driver_exit_code=exit_code)
    assert job.poll() == code


def test_a_job_is_stopped_through_ray_and_its_last_error_read_from_its_log(
    jobs: RayJobs, client: Client
) -> None:
    job = jobs.start([], Path("/out"))
    job.stop()
    assert client.stopped == ["raysubmit_1"]
    assert job.last_line() == "EngineError: rollout-0 died"


def test_a_cluster_that_takes_no_jobs_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise ConnectionError("no dashboard\nlong trace")

    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", refuse)
    with pytest.raises(EngineError, match=r"at auto takes no jobs: no dashboard$"):
        RayJobs("auto", "launch/train.py", {})
