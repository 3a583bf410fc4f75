"""A metrics port of Ray has every metric that the dashboard asks for."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from actors.cluster.gauges import StepGauges, gauge_name, run_tags
from actors.observe.dashboard import DASHBOARD, FOLDER, exported_names, provision
from rl.metrics import METRICS
from rl.problems import minipy
from rl.step import collect, learn
from rl.types import StepReport
from tests.system.conftest import LiveFleet

pytestmark = pytest.mark.system

ON_GPUS_ONLY = {"ray_node_gpus_utilization", "ray_node_gram_used"}
# What the loop, a probe and an evaluation add to a step.
BESIDE_THE_STEP = {"time/wait_s", "time/step_s", "time/probe_s", "time/checkpoint_s"}
BESIDE_THE_STEP |= {"eval/pass@1", "probe/pass@1", "probe/reward", "rm/exec_agreement"}
BESIDE_THE_STEP |= {"alarm/fired", "alarm/pass_drop", "alarm/needed_drop"}


def _exported() -> tuple[set[str], str]:
    """Names that have a value on the metrics port of the only node, and all of its text."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    values = [line for line in text.splitlines() if not line.startswith("#")]
    return exported_names("\n".join(values)), text


async def _one_step(live: LiveFleet, step: int) -> StepReport:
    problems = minipy.make_prompts("train", 4, 0)
    batch = await collect(step, live.fleet, live.recipe, problems, {})
    return await learn(step, batch, live.fleet, on_policy=True)


def test_prometheus_finds_every_metric_of_the_dashboard(live: LiveFleet) -> None:
    step = live.fresh_step()
    report = live.wait(asyncio.wait_for(_one_step(live, step), 120))
    assert BESIDE_THE_STEP.isdisjoint(report.metrics)
    metrics = {**report.metrics, **dict.fromkeys(BESIDE_THE_STEP, 0.5)}
    assert set(metrics) <= set(METRICS)
    gauges = StepGauges(run_tags("system", "monitoring"))
    gauges.write(StepReport(step=step, metrics=metrics))
    wanted = exported_names(DASHBOARD.read_text(encoding="ascii")) - ON_GPUS_ONLY
    deadline_s = time.monotonic() + 60  # Ray exports every ten seconds
    while (missing := wanted - _exported()[0]) and time.monotonic() < deadline_s:
        time.sleep(1)
    assert not missing
    ours = f"ray_{gauge_name('step')}{{"
    line = next(line for line in _exported()[1].splitlines() if line.startswith(ours))
    assert 'experiment="system"' in line and 'run="monitoring"' in line
    assert float(line.split()[-1]) == step


def test_the_dashboard_stands_beside_rays_own(ray_cluster: None) -> None:
    context = ray.get_runtime_context()
    folder = Path(context.get_temp_dir()) / context.get_session_name() / FOLDER
    provision()
    assert (folder / "default_grafana_dashboard.json").is_file()
    assert (folder / "codescaler.json").is_file()
