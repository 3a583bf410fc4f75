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
