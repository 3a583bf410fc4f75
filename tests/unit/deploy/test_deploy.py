"""The files for Kubernetes and Slurm say what their schedulers and our commands understand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cluster.ray_jobs import fit_together
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]

# Fields of KubeRay's API ray.io/v1, by the object that has them; the API server refuses others.
# They are those of the CRD of KubeRay 1.7.0 (ray.io_rayjobs.yaml of its Helm chart). The file,
# pods included, was checked against it, and against those of 1.5.1 and 1.6.2.
JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy"),
    *("metadata", "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML"),
    "shutdownAfterJobFinishes",
    *("submissionMode", "submitterConfig", "submitterPodTemplate", "suspend"),
    "ttlSecondsAfterFinished",
}
CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "headServiceAnnotations", "historyServerOptions", "managedBy"),
    *("networkPolicy", "rayVersion", "suspend", "tlsOptions", "upgradeStrategy"),
    "workerGroupSpecs",
}
HEAD = {
    *("enableIngress", "headService", "ingressOptions", "labels", "rayStartParams", "resources"),
    *("serviceType", "template"),
}
WORKER = {
    *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts"),
    *("priority", "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend"),
    "template",
}


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((TREE / "deploy/rayjob.yaml").read_text())


def test_the_ray_job_has_fields_of_its_schema_only(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= JOB
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    # KubeRay refuses a time to live without it.
    assert spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] >= 0
    assert set(cluster) <= CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["headGroupSpec"]) <= HEAD
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) <= WORKER
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        params = group["rayStartParams"]
        assert all(isinstance(value, str) for value in params.values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_ray_version_is_the_one_that_is_locked(job: dict[str, Any]) -> None:
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version}\n" in (TREE / "requirements/cpu.lock").read_text()


def test_secrets_come_from_secrets(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        env = group["template"]["spec"]["containers"][0]["env"]
        (token,) = [variable for variable in env if variable["name"] == "HF_TOKEN"]
        assert set(token) == {"name", "valueFrom"} and "secretKeyRef" in token["valueFrom"]


def test_the_run_of_the_ray_job_is_a_good_one_and_fits_on_its_workers(job: dict[str, Any]) -> None:
    command = shlex.split(job["spec"]["entrypoint"])
    assert command[:5] == ["cd", "/opt/codescaler", "&&", "python", "launch/train.py"]
    config = compose_config(forced_overrides(command[5:]))
    assert config.output_dir.startswith("/shared/")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    node = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
    assert fit_together([config], [node] * workers["replicas"])


def test_the_slurm_script_is_valid_and_keeps_its_token_to_itself() -> None:
    script = TREE / "deploy/slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "umask 077" in text and 'rm -f "$RAY_AUTH_TOKEN_PATH"' in text


# Long options of sbatch and srun that a run may want (of their pages on slurm.schedmd.com), and
# the short ones of srun that are used; --overlap is of Slurm 20.11.
OF_BOTH = {
    *("account", "chdir", "constraint", "cpus-per-gpu", "cpus-per-task", "distribution", "error"),
    *("exclude", "exclusive", "export", "gpus", "gpus-per-node", "gpus-per-task", "gres", "hint"),
    *("input", "job-name", "mem", "mem-per-cpu", "mem-per-gpu", "nodelist", "nodes", "ntasks"),
    *("ntasks-per-node", "open-mode", "output", "partition", "qos", "reservation", "time"),
}
SBATCH = OF_BOTH | {"array", "mail-type", "mail-user", "no-requeue", "requeue", "signal"}
SRUN = OF_BOTH | {"exact", "kill-on-bad-exit", "label", "overlap", "pty", "unbuffered", "wait"}
SHORT = {"-w": "nodelist", "-x": "exclude"}


def test_the_slurm_script_asks_for_what_sbatch_knows_before_its_first_command() -> None:
    lines = (TREE / "deploy/slurm.sh").read_text().splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if line and not line.startswith("#"))]
    asked = [line for line in lines if line.startswith("#SBATCH")]
    assert len(asked) >= 6 and set(asked) <= set(head)  # sbatch does not read any further
    assert all(re.fullmatch(r"#SBATCH --[\w-]+=\S+", line) for line in asked)
    pairs = [line.removeprefix("#SBATCH --").partition("=") for line in asked]
    found = {name: value for name, _, value in pairs}
    assert set(found) <= SBATCH
    assert re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", found["time"])
    assert re.fullmatch(r"B:[A-Z]+@\d+", found["signal"])  # to the script alone, seconds before
    assert found["ntasks-per-node"] == "1"  # a raylet each


FAKES = {
    # Many nodes: whoever stops reading after the first would end the script by SIGPIPE.
    "scontrol": 'echo alpha; /bin/sleep 0.2; printf "beta\\ngamma\\n"',
    "sleep": "exec /bin/sleep 0.2",  # of the seconds that nodes take to start
    "srun": """
        printf '%s\\n' "$*" >> calls
        stat -c %a .ray-token-7 >> modes 2> /dev/null
        while [ "${1#-}" != "$1" ]; do case "$1" in -w | -x) shift 2 ;; *) shift ;; esac; done
        case "$1" in hostname) echo "10.0.0.1 fe80::1" ;; python) exit 3 ;; esac""",
}


def test_the_slurm_script_starts_a_head_the_others_and_the_run_and_ends_as_the_run_does(
    tmp_path: Path,
) -> None:
    """With commands of Slurm that only write down how they were called."""
    for name, script in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "64",
    }
    command = ["bash", str(TREE / "deploy/slurm.sh"), "experiment=qwen3_8b_codescaler"]
    done = subprocess.run(command, env=env, timeout=60, check=False)
    assert done.returncode == 3
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    for call in calls:
        for option in call[
            : next(i for i, w in enumerate(call) if w in {"hostname", "ray", "python"})
        ]:
            name = option.removeprefix("--").partition("=")[0]
            assert not option.startswith("-") or SHORT.get(option, name) in SRUN, option
    _, head, others, run = (" ".join(call) for call in calls)
    assert head.endswith("-w alpha ray start --head --node-ip-address=10.0.0.1 --port=6379 --block")
    assert "--nodes=2 --ntasks=2 -x alpha ray start --address=10.0.0.1:6379 --block" in others
    assert run.endswith("python launch/train.py resume=auto experiment=qwen3_8b_codescaler")
    assert "--overlap" in run  # the head's cores are those of its raylet
    assert set((tmp_path / "modes").read_text().split()) == {"600"}
    assert not list(tmp_path.glob(".ray-token-*"))


def test_the_slurm_script_gives_every_step_the_cores_of_its_node() -> None:
    text = (TREE / "deploy/slurm.sh").read_text()
    passed_on = text.index('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    assert "#SBATCH --cpus-per-task=" in text and passed_on < text.index("srun --nodes=1")


def test_the_images_hold_what_the_other_files_expect(job: dict[str, Any]) -> None:
    lines = (TREE / "deploy/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [step[1] for step in steps if step[0] == "COPY"]
    assert copied == ["requirements/cpu.lock", ".", "requirements/gpu.lock", "."]
    assert all((TREE / source).exists() for source in copied)
    (folder,) = [step[1] for step in steps if step[0] == "WORKDIR"]
    assert job["spec"]["entrypoint"].startswith(f"cd {folder} && python launch/train.py ")
    assert [step[3] for step in steps if step[0] == "FROM"] == ["base", "cpu", "gpu"]
    (installed,) = [step for step in steps if "apt-get" in step]
    needed = re.search(r"install (bubblewrap .*) with", (TREE / "Makefile").read_text())
    assert needed is not None
    assert set(needed[1].split()) - {"and"} <= set(installed)
    commands = [step[1:] for step in steps if step[0] == "CMD"]
    scripts = [json.loads(" ".join(command))[1] for command in commands]
    assert all((TREE / script).is_file() for script in scripts)


def test_an_image_has_the_tree_and_nothing_that_git_leaves_out() -> None:
    left_out = set((TREE / ".dockerignore").read_text().split())
    assert {".venv", "data", "models", "outputs", ".git"} <= left_out
    shipped = {"actors", "assets", "conf", "launch", "requirements", "reward", "rl", "setup.cfg"}
    assert not shipped & left_out
