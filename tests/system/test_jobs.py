"""`ray job submit` on a cluster with a token: to the end, and stopped in the middle."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl.run.checkpoint import complete_checkpoints
from tests.system.forks import ROOT, free_port
from tests.system.heads import BIN, ray_head, run_ray

TRAIN = (
    *("python", "launch/train.py", "experiment=quickstart", "data.num_eval=6", "data.num_train=64"),
    *("algorithm.prompts_per_step=4", "policy.ranks=1", "reward.shards=1", "checkpoint.every=1"),
)
NAMES = {"rollout-0", "reward-0", "policy-0"}


@dataclass(frozen=True)
class Cluster:
    """A head that was started by hand, as the user of its token sees it."""

    address: str  # to join
    url: str  # for jobs
    env: dict[str, str]
    token: str

    def ray(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_ray(self.env, *args)

    def submit(self, name: str, *overrides: str) -> None:
        flags = ("--no-wait", "--submission-id", name, "--working-dir", ".")
        command = (*TRAIN, f"name={name}", *overrides)
        deadline = time.monotonic() + 90
        while True:
            done = self.ray("job", "submit", "--address", self.url, *flags, "--", *command)
            # A new head takes no jobs before its agent is up. Ray waits 10 s for it.
            if "No available agent" not in done.stderr + done.stdout or time.monotonic() > deadline:
                break
        assert done.returncode == 0, done.stdout + done.stderr

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def status(self, name: str) -> str:
        return self.get(f"/api/jobs/{name}")["status"]

    def logs(self, name: str) -> str:
        return self.get(f"/api/jobs/{name}/logs")["logs"]

    def listed(self, what: str) -> list[dict[str, Any]]:
        """What the state API knows, as `ray list` asks it."""
        return self.get(f"/api/v0/{what}?limit=1000")["data"]["result"]["result"]

    def alive(self) -> set[str]:
        """Names of the live actors of the run."""
        rows = self.listed("actors")
        return {row["name"] for row in rows if row["state"] == "ALIVE"} & NAMES

    def wait(self, name: str, until: Callable[[], bool], timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, self.logs(name)[-3000:]
            time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("home")
    token = secrets.token_hex(32)
    (home / "token").write_text(token)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "CODESCALER_HOME": str(home),
    }
    dashboard = free_port()
    # The agent's default, 52365, is one port for all heads of a machine: the second takes no jobs.
    flags = (f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0")
    with ray_head(env, *flags) as address:
        yield Cluster(address, f"http://127.0.0.1:{dashboard}", env, token)


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def leftovers() -> list[str]:
    """Processes of a run: its command, its actors, its sandbox."""
    found: list[str] = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "launch/train.py" in line or "sandbox_child" in line or line.startswith("ray::R"):
            found.append(line)
    return found


@pytest.mark.system
@pytest.mark.timeout(420)
def test_a_submitted_run_succeeds_with_its_actors_in_sight_and_its_outputs_kept(
    cluster: Cluster,
) -> None:
    probe = ("probe.every=1", "probe.num_prompts=16", "probe.num_samples=2")
    cluster.submit("whole", "algorithm.num_steps=2", "trackers=tensorboard", *probe)
    cluster.wait("whole", lambda: cluster.alive() == NAMES)
    cluster.wait("whole", lambda: cluster.status("whole") not in {"PENDING", "RUNNING"})
    logs = cluster.logs("whole")
    assert cluster.status("whole") == "SUCCEEDED", logs[-3000:]
    run = Path(cluster.env["CODESCALER_HOME"]) / "outputs/quickstart/whole"
    assert f"==> run  {run}" in logs and "step    2/2" in logs
    assert "\r" not in logs and "\x1b" not in logs  # no progress bar, no colours
    check_summary(run)
    check_steps(run)
    assert list((run / "hf").glob("*.safetensors"))
    assert (run / "rollouts/step-000002.parquet").is_file()
    assert (run / "report.html").is_file()
    assert list((run / "trackers/tensorboard").glob("events.out.*"))


def check_summary(run: Path) -> None:
    """Everything that the contract names is there, and no program was run for a reward."""
    summary = json.loads((run / "summary.json").read_text())
    wanted = {"base_pass@1", "final_pass@1", "bon8_pass@1", "oracle_pass@8", "rm_pair_accuracy"}
    wanted |= {"valid_rate_first", "valid_rate_last", "steps", "wall_s", "stage_s", "seed"}
    assert wanted | {"versions"} <= set(summary)
    assert summary["programs_executed_for_reward"] == 0
    assert summary["programs_executed_for_evaluation"] > 0
    assert summary["probe"]["num_probes"] == 3 and summary["programs_executed_for_probe"] > 0
    assert summary["alarm"]["fired_at"] == []


def check_steps(run: Path) -> None:
    """Metrics, probes and timeline of two steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["probe/pass@1"] <= 1 and line["probe/reward"] > 0 for line in lines)
    assert all(line["rm/exec_agreement"] > 0.5 for line in lines)  # the shipped model is a good one
    assert all(line["rm/score_p05"] < line["rm/score_p95"] for line in lines)
    probes = [json.loads(line)["step"] for line in (run / "probe.jsonl").read_text().splitlines()]
    assert probes == [0, 1, 2]
    stages = [event["name"] for event in json.loads((run / "timeline.json").read_text())]
    assert [stages.count(name) for name in ("publish", "probe", "evaluate")] == [2, 3, 2]


@pytest.mark.chaos
@pytest.mark.timeout(420)
def test_a_stopped_run_leaves_a_good_checkpoint_and_nothing_else(cluster: Cluster) -> None:
    before = shared_memory(), len(leftovers())
    cluster.submit("cut", "algorithm.num_steps=500", "probe.every=0")
    checkpoints = Path(cluster.env["CODESCALER_HOME"]) / "outputs/quickstart/cut/checkpoints"
    cluster.wait("cut", lambda: bool(complete_checkpoints(checkpoints)))
    cluster.ray("job", "stop", "--address", cluster.url, "cut")
    assert cluster.status("cut") == "STOPPED"
    logs = cluster.logs("cut")
    assert "error: StoppedError: stopped by SIGTERM; the same command with resume=auto" in logs
    assert "Traceback" not in logs
    newest = complete_checkpoints(checkpoints)[-1]
    assert f"after step {newest.step}" in logs
    cluster.wait("cut", lambda: (shared_memory(), len(leftovers())) == before, timeout_s=30)
    assert cluster.alive() == set()
    groups = cluster.listed("placement_groups")
    assert {group["state"] for group in groups} <= {"REMOVED"}


@pytest.mark.system
def test_without_the_token_there_is_one_clear_message(cluster: Cluster) -> None:
    env = {k: v for k, v in cluster.env.items() if k != "RAY_AUTH_TOKEN_PATH"}
    env |= {"HOME": "/nonexistent", "RAY_ADDRESS": cluster.address}
    done = subprocess.run(
        [sys.executable, "launch/train.py", "experiment=quickstart", "name=no_token"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "token" in done.stderr.lower()
