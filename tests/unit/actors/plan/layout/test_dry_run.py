"""A dry run plans on the machines there are, or on those that the placement is made for."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from actors.cluster.bundles import run_bundles, run_needs
from actors.plan.checks import preflight as checks
from actors.plan.layout import dry_run as module
from actors.plan.layout.dry_run import (
    Site,
    assumed_machine,
    dry_run,
    dry_run_training,
    find_site,
    model_shapes,
)
from actors.plan.layout.plan import make_plan
from actors.plan.layout.plan_text import describe
from conf.errors import UserError
from rl.run.directory import RunDirectory
from tests.settings import run_config, shipped_config

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[5]
QWEN = "experiment=qwen3_8b_codescaler"


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop with two cores, without GPU and cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for place in (module, checks):
        monkeypatch.setattr(place, "local_gpus", lambda: 0)
    monkeypatch.setattr(module, "local_gpu_bytes", lambda: None)


def site_of(overrides: list[str]) -> Site:
    cfg = run_config(overrides)
    return find_site(cfg, run_needs(cfg))


def shown(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    dry_run(shipped_config(overrides))
    return capsys.readouterr().out


def test_a_run_that_fits_here_is_planned_on_this_machine(capsys: pytest.CaptureFixture[str]):
    text = shown(capsys)
    assert "+- node 0, 1.25 of 2 CPUs taken" in text
    assert "all of it fits" in text and "not here" not in text


def test_the_plan_names_the_directory_that_a_run_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = f"output_dir={tmp_path}"
    assert f"written to {tmp_path}/quickstart/run\n" in shown(capsys, place)
    for taken in ("run", "run-2"):
        (tmp_path / "quickstart" / taken).mkdir(parents=True)
        (tmp_path / "quickstart" / taken / "metrics.jsonl").write_text('{"step": 1}\n')
    assert f"written to {tmp_path}/quickstart/run-3\n" in shown(capsys, place)
    for given in ("name=mine", "resume=auto", "overwrite=true"):
        name = "mine" if given == "name=mine" else "run"
        assert f"written to {tmp_path}/quickstart/{name}\n" in shown(capsys, place, given)
    assert not (tmp_path / "quickstart/run-3").exists()


def test_a_run_for_other_hardware_is_planned_and_says_what_is_missing_here(
    capsys: pytest.CaptureFixture[str],
):
    text = shown(capsys, QWEN)
    assert "node 0 (assumed)" in text
    assert "placement=one_node needs 8 GPUs and 32 CPUs" in text
    assert "1 node(s) with 0 GPUs and 2 CPUs are present" in text
    assert "data.train_path: the file data/deepcoder/train.parquet does not exist" in text


def test_wrong_files_are_an_error_where_the_run_could_start(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match=r"model\.path: the model directory /nowhere does"):
        shown(capsys, "model.path=/nowhere")
    assert "placement laptop" in capsys.readouterr().out  # the plan is shown before


def test_what_would_not_fit_is_an_error_wherever_it_is_planned(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match=r"policy\.gradient_checkpointing=true"):
        shown(capsys, QWEN, "policy.gradient_checkpointing=false")
    assert "would not fit" in capsys.readouterr().out


def test_threads_that_no_machine_of_the_plan_has_are_said_once(
    capsys: pytest.CaptureFixture[str],
):
    cfg = run_config(["rollout.cpu_threads=999"])
    with pytest.raises(UserError, match="999 threads of one actor") as refused:
        dry_run(cfg)
    assert str(refused.value).count("999") == 1
    assert "999 threads" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"policy\.cpu_threads: 999 threads"):
        dry_run_training(run_config(["policy.cpu_threads=999"]), "assets/minipy/rm", None)


def test_a_cluster_that_does_not_answer_is_said_at_once():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    site = site_of([QWEN, f"++ray.address=127.0.0.1:{port}"])
    assert site.lacks is not None
    assert f"the cluster at 127.0.0.1:{port} does not answer" in site.lacks
    assert [machine.assumed for machine in site.machines] == ["all"]


def test_the_nodes_of_a_cluster_are_planned_with(monkeypatch: pytest.MonkeyPatch):
    node = {"CPU": 96.0, "GPU": 8.0, "memory": 2.0**40}
    monkeypatch.setattr(module, "_nodes_of_cluster", lambda *_: [node, node])
    site = site_of([QWEN, "++ray.address=head:6379"])
    assert site.lacks is None
    assert [(m.gpus, m.assumed) for m in site.machines] == [(8, "memory")] * 2


def test_a_cluster_that_is_too_small_is_said(monkeypatch: pytest.MonkeyPatch):
    nodes = [{"CPU": 96.0, "GPU": 4.0, "memory": 2.0**40}] * 2
    monkeypatch.setattr(module, "_nodes_of_cluster", lambda *_: nodes)
    site = site_of([QWEN, "++ray.address=head:6379"])
    assert site.lacks is not None and "2 node(s) with 8 GPUs" in site.lacks


# --- every experiment ----------------------------------------------------------------------------

EXPERIMENTS = sorted(file.stem for file in (TREE / "conf/experiment").glob("*.yaml"))

# They begin with a model that another command makes, and the plan says what it does not know of it.
MADE_FIRST = {"recipe_aletheia", "recipe_cvedrl", "smollm2_mbpp"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_a_picture_and_a_table_of_all_that_it_starts(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without the files of a checkout in use: those are looked at elsewhere."""
    monkeypatch.chdir(tmp_path)
    cfg = shipped_config([f"experiment={experiment}"])
    wanted = [bundle.actor for bundle in run_bundles(cfg)]
    shapes = model_shapes(cfg.model.path, cfg.reward.model, made=cfg.loop.enabled)
    machines = [assumed_machine(cfg.placement.node)] * cfg.placement.num_nodes
    plan = make_plan(cfg, machines, shapes)
    text = "\n".join(describe(cfg, plan, shapes))
    picture, _, table = text.partition("\nplacement ")[2].partition("\nmemory of one actor")
    assert sorted(re.findall(r"\b\w+-\d+\b", picture)) == sorted(wanted)
    for group in {actor.rpartition("-")[0] for actor in wanted}:
        assert f"\n  {group} " in table
    assert plan.misfits == ()
    assert ("unknown" in table) == (experiment in MADE_FIRST)
    assert experiment in MADE_FIRST or table.rstrip().endswith("all of it fits")


# --- the experiments for GPUs --------------------------------------------------------------------

GPUS = {  # of each node
    "qwen3_8b_codescaler": 8,
    "qwen3_8b_colocated": 8,
    "qwen3_14b_codescaler": 8,
    "qwen3_1_7b_one_gpu": 1,
    "qwen3_8b_lora": 1,
    "qwen3_8b_rollouts": 8,
}


@pytest.mark.parametrize("experiment", GPUS)
def test_an_experiment_for_gpus_is_planned_and_fits(
    experiment: str, capsys: pytest.CaptureFixture[str]
):
    cfg = run_config([f"experiment={experiment}"])
    text = shown(capsys, f"experiment={experiment}")
    nodes = cfg.placement.num_nodes
    assert text.count("(assumed)") == nodes
    busy = [line for line in text.splitlines() if line.startswith("| gpu") and "GiB" in line]
    assert len(busy) == nodes * GPUS[experiment]
    taken = [float(line.partition("] ")[2].split()[0]) for line in busy]
    assert all(10 < gib < 0.95 * 79 for gib in taken)  # none is idle, none is full to the brim
    assert "all of it fits" in text and "nothing was started" in text


def test_the_run_without_tests_begins_where_the_first_one_ends_and_fits_as_it_does(
    capsys: pytest.CaptureFixture[str],
):
    first, second = (
        run_config([f"experiment={name}"]) for name in ("qwen3_8b_codescaler", "qwen3_8b_synthetic")
    )
    assert second.model.path == str(RunDirectory.of(first).hf)
    assert not second.reward.by_tests
    plans = [shown(capsys, f"experiment={run.experiment}") for run in (first, second)]
    boxes = [[line for line in plan.splitlines() if line.startswith("| gpu")] for plan in plans]
    assert boxes[0] == boxes[1] and len(boxes[1]) == 8
    assert "all of it fits" in plans[1]


def test_the_colocated_run_has_one_actor_of_each_group_on_each_gpu(
    capsys: pytest.CaptureFixture[str],
):
    text = shown(capsys, "experiment=qwen3_8b_colocated")
    for index in range(8):
        assert f"| gpu {index}  rollout-{index} + reward-{index} + policy-{index} " in text


def test_the_rollouts_for_pairs_keep_every_verdict_and_load_no_reward_model():
    cfg = run_config(["experiment=qwen3_8b_rollouts"])
    assert (cfg.reward.kind, cfg.reward.early_stop) == ("execution", False)
    assert cfg.checkpoint.rollouts_every == 1
    assert cfg.rollout.engines + cfg.policy.ranks == 8


def test_adapters_let_two_models_of_8b_share_one_card_of_80_gb(capsys: pytest.CaptureFixture[str]):
    dry_run(run_config(["experiment=qwen3_8b_lora"]))
    text = capsys.readouterr().out
    assert "| gpu 0  rollout-0 + reward-0 + policy-0 " in text and "all of it fits" in text
    with pytest.raises(UserError, match="gpu 0 of node 0"):
        dry_run(run_config(["experiment=qwen3_8b_lora", "++policy.lora.rank=0"]))


def test_the_run_on_one_gpu_gives_the_host_what_does_not_fit_beside_the_engines():
    cfg = run_config(["experiment=qwen3_1_7b_one_gpu"])
    assert cfg.placement.colocate and cfg.policy.offload_optimizer
    longest = cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens
    assert cfg.policy.microbatch_tokens >= longest
