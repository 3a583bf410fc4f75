"""Every query of the dashboard names a metric that a run exports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.dashboard.modules.metrics.grafana_dashboard_factory import (
    generate_data_llm_grafana_dashboard,
    generate_default_grafana_dashboard,
    generate_serve_llm_grafana_dashboard,
)

from actors.cluster.gauges import HITS, KV_USAGE, QUERIED, RUNNING, WAITING, gauge_name
from actors.observe.dashboard import DASHBOARD, FOLDER, dashboard_json, exported_names, provision
from rl.metrics import METRICS, batch_metrics
from rl.types import Extraction, Reason
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

RECORDED = Path(__file__).with_name("metrics_keys.json")  # the keys of a real metrics.jsonl

SHIPPED = DASHBOARD.read_text(encoding="ascii")
PROBED = {"probe/pass@1", "probe/reward", "rm/exec_agreement", "time/probe_s", "time/checkpoint_s"}
PROBED |= {"alarm/fired", "alarm/pass_drop", "alarm/needed_drop"}
VLLM = {f"ray_{name}" for name in (RUNNING, WAITING, KV_USAGE, QUERIED, HITS)}


def names_of_runs() -> set[str]:
    """Of the recorded run, which had no probe, and of a batch, a probe and an evaluation."""
    group = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0))
    codes = tuple(Extraction(reason=Reason.OK, code=code) for code in ("a = 1", "a = 2"))
    batch = batch_metrics([dataclasses.replace(group, extractions_G=codes)])
    recorded = json.loads(RECORDED.read_text(encoding="ascii"))
    return {"eval/pass@1", *PROBED, *batch, *recorded}


def test_the_shipped_file_is_what_the_code_says() -> None:
    assert dashboard_json() == SHIPPED, "run `make docs`"


def test_the_recorded_names_are_registered() -> None:
    assert names_of_runs() <= set(METRICS)


def test_every_query_of_ours_names_a_metric_of_a_real_run() -> None:
    asked = {name for name in exported_names(SHIPPED) if name.startswith("ray_codescaler_")}
    assert asked <= {f"ray_{gauge_name(name)}" for name in {"step", *names_of_runs()}}
    assert len(asked) > 40  # the test has seen the queries


def test_every_query_of_vllm_names_a_gauge_of_our_engines_that_rays_dashboards_know() -> None:
    asked = {name for name in exported_names(SHIPPED) if name.startswith("ray_vllm_")}
    rays = generate_data_llm_grafana_dashboard()[0] + generate_serve_llm_grafana_dashboard()[0]
    assert asked == VLLM
    assert exported_names(rays) >= VLLM


def test_every_query_of_a_machine_names_a_metric_of_rays_own_dashboard() -> None:
    asked = exported_names(SHIPPED)
    machine = {name for name in asked if not name.startswith(("ray_codescaler_", "ray_vllm_"))}
    assert {"ray_node_gpus_utilization", "ray_node_cpu_utilization"} <= machine
    assert machine <= exported_names(generate_default_grafana_dashboard()[0])


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(SHIPPED)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(0 <= x < 24 for x, _ in cells)


def test_a_local_ray_gets_the_dashboard_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_temp_dir=lambda: str(tmp_path), get_session_name=lambda: "s")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    provision()  # Ray without its dashboard has no folder, and that is no error
    folder = tmp_path / "s" / FOLDER
    folder.mkdir(parents=True)
    provision()
    assert (folder / "codescaler.json").read_text(encoding="ascii") == SHIPPED
