"""The Grafana dashboard of a run, as data, and how it comes into Ray's own Grafana folder.

`assets/grafana/codescaler.json` is written from here by `make docs`.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.cluster.gauges import HITS, KV_USAGE, QUERIED, RUNNING, WAITING, gauge_name
from rl.metrics import METRICS
from rl.types import Reason

logger = logging.getLogger(__name__)

DASHBOARD = Path(__file__).resolve().parents[2] / "assets/grafana/codescaler.json"
FOLDER = Path("metrics/grafana/dashboards")  # in a session's directory: what Ray's Grafana reads

OF_RUN = '{experiment=~"$experiment",run=~"$run"}'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 8, 8  # of a panel, on a grid of 24 columns


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"  # of Grafana
    stacked: bool = False


def _of_steps(title: str, *names: str, unit: str = "short", stacked: bool = False) -> Panel:
    """A graph of metrics of `rl.metrics`, explained by what the registry says."""
    queries = tuple(
        Query(f"ray_{gauge_name(name)}{OF_RUN}", f"{name} {{{{run}}}}") for name in names
    )
    about = "\n".join(f"- {name}: {METRICS[name].meaning}" for name in names)
    return Panel(title, about, queries, unit, stacked)


def _of_engines(title: str, about: str, *metrics: tuple[str, str], unit: str = "short") -> Panel:
    """A graph of gauges of the vLLM engines, a series for each engine."""
    queries = tuple(
        Query(f"ray_{name}{OF_RUN}", f"{what} {{{{engine}}}}".strip()) for name, what in metrics
    )
    return Panel(title, about, queries, unit)


def _hit_rate() -> Panel:
    hits, queried = (
        f"sum by (engine) (rate(ray_{name}{OF_RUN}[$__rate_interval]))" for name in (HITS, QUERIED)
    )
    return Panel(
        "Prefix cache: hit rate",
        "Prompt tokens that were found in the prefix cache; it is emptied after each publication.",
        (Query(f"{hits} / {queried}", "{{engine}}"),),
        "percentunit",
    )


def _of_machines(title: str, about: str, unit: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, about, tuple(Query(*query) for query in queries), unit)


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is it learning?",
        (
            _of_steps("Reward", "reward/mean", "probe/reward"),
            _of_steps(
                "Held-out problems solved", "eval/pass@1", "probe/pass@1", unit="percentunit"
            ),
            _of_steps("Valid code", "reward/valid_rate", unit="percentunit"),
            _of_steps("RM against execution", "rm/exec_agreement", unit="percentunit"),
            _of_steps("Hacking alarm", "alarm/fired", "alarm/pass_drop", "alarm/needed_drop"),
            Panel(
                "Steps done", "RL steps.", (Query(f"ray_{gauge_name('step')}{OF_RUN}", "{{run}}"),)
            ),
        ),
    ),
    (
        "Policy",
        (
            _of_steps("Loss", "policy/loss"),
            _of_steps("KL", "policy/approx_kl", "policy/ref_kl", "rollout/mismatch_kl"),
            _of_steps("Gradient norm", "policy/grad_norm"),
            _of_steps(
                "Clipped tokens", "policy/clip_frac", "policy/tis_capped_frac", unit="percentunit"
            ),
            _of_steps("Entropy", "policy/entropy"),
            _of_steps("Staleness", "rollout/staleness"),
        ),
    ),
    (
        "Rollouts and reward model",
        (
            _of_steps("Completion tokens per second", "rollout/tokens_per_s"),
            _of_steps("Completion length", "rollout/completion_tokens"),
            _of_steps(
                "Why there is no code",
                "rollout/truncated_rate",
                *(f"reward/reason/{reason.value}" for reason in Reason if reason is not Reason.OK),
                unit="percentunit",
            ),
            _of_steps(
                "Scores",
                "rm/score_p05",
                "rm/score_p25",
                "rm/score_p50",
                "rm/score_p75",
                "rm/score_p95",
            ),
            _of_steps("Ties", "rm/tie_rate", "rm/pair_tie_rate", unit="percentunit"),
            _of_steps(
                "Reused and truncated scores",
                "rm/reused_rate",
                "rm/truncated_rate",
                unit="percentunit",
            ),
        ),
    ),
    (
        "Where the time goes",
        (
            _of_steps(
                "Stages",
                "time/rollout_s",
                "time/score_s",
                "time/update_s",
                "time/publish_s",
                unit="s",
                stacked=True,
            ),
            _of_steps("Step, and waiting for groups", "time/step_s", "time/wait_s", unit="s"),
            _of_steps(
                "Probe, checkpoint, and the first score",
                "time/probe_s",
                "time/checkpoint_s",
                "time/first_score_s",
                unit="s",
            ),
        ),
    ),
    (
        "vLLM engines",
        (
            _of_engines(
                "Sequences",
                "Sequences that each engine runs, and those that wait for room.",
                (RUNNING, "running"),
                (WAITING, "waiting"),
            ),
            _of_engines(
                "KV cache in use",
                "At 100 % sequences are preempted and begin again.",
                (KV_USAGE, ""),
                unit="percentunit",
            ),
            _hit_rate(),
        ),
    ),
    (
        "Machines",
        (
            _of_machines(
                "GPU utilisation",
                "Of each GPU.",
                "percent",
                ("ray_node_gpus_utilization", "{{instance}} GPU {{GpuIndex}}"),
            ),
            _of_machines(
                "GPU memory in use",
                "Of each GPU.",
                "decmbytes",
                ("ray_node_gram_used", "{{instance}} GPU {{GpuIndex}}"),
            ),
            _of_machines(
                "CPU utilisation",
                "Of each node.",
                "percent",
                ("ray_node_cpu_utilization", "{{instance}}"),
            ),
            _of_machines(
                "Memory",
                "Of each node.",
                "bytes",
                ("ray_node_mem_used_host", "used {{instance}}"),
                ("ray_node_mem_total_host", "there {{instance}}"),
            ),
            _of_machines(
                "Memory of processes",
                "Resident memory, by the name that Ray gives a process.",
                "bytes",
                ("sum by (Component) (ray_component_rss_bytes)", "{{Component}}"),
            ),
            _of_machines(
                "Disk in use", "Of each node.", "bytes", ("ray_node_disk_usage", "{{instance}}")
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
                "panels": [],
            }
        )
        top += 1
        per_line = 24 // WIDTH
        for index, panel in enumerate(row):
            place = {"x": WIDTH * (index % per_line), "y": top + HEIGHT * (index // per_line)}
            panels.append(_graph(panel, len(panels) + 1, place))
        top += HEIGHT * -(-len(row) // per_line)
    return {
        "uid": "codescaler",
        "title": "CodeScaler",
        "description": "RL runs of codescaler-ray: docs/monitoring.md",
        "tags": ["codescaler"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # the crosshair is shared
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [_datasource(), _choice("experiment", ""), _choice("run", "experiment")]
        },
        "panels": panels,
    }


def dashboard_json() -> str:
    """The text of the shipped file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _graph(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none"}
    custom = {"lineWidth": 2, "fillOpacity": 60 if panel.stacked else 0, "stacking": stacking}
    return {
        "type": "timeseries",
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, **place},
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 2,
    }


def _choice(label: str, within: str) -> dict[str, Any]:
    """A list to choose series by: the values of `label` among the runs that `within` leaves."""
    filters = f'{{{within}=~"${within}"}}' if within else ""
    query = f"label_values(ray_{gauge_name('step')}{filters}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,  # when the time range changes
        "sort": 1,
    }


def exported_names(text: str) -> set[str]:
    """Names of Ray's metrics in PromQL, in a dashboard or in what a metrics port answers.

    >>> sorted(exported_names('rate(ray_vllm_hits_total{run=~"a"}[1m]) / ray_x'))
    ['ray_vllm_hits_total', 'ray_x']
    """
    return set(re.findall(r"\bray_[A-Za-z0-9_]+", text))


def copy_to(folder: Path) -> Path:
    """Put the shipped dashboard into a folder that Grafana reads; returns the file."""
    target = folder / DASHBOARD.name
    shutil.copyfile(DASHBOARD, target)
    return target


def provision() -> None:
    """Put the dashboard beside Ray's own, on the machine that this process has started Ray on.

    Ray makes the folder while its dashboard starts; without one there is nothing to do.
    """
    context = ray.get_runtime_context()
    folder = Path(context.get_temp_dir()) / context.get_session_name() / FOLDER
    if folder.is_dir():
        copy_to(folder)
    else:
        logger.debug("Ray has no folder for Grafana: %s", folder)
