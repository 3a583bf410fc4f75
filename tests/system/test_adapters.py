"""Adapters under ZeRO-3, on one rank and on two, against plain peft; and a run of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from actors.engines.adapters import adapter_parameters
from actors.engines.deepspeed_engine import TrainEngine
from conf.errors import UserError
from conf.schema import LoraConfig
from rl.packing import build_minibatch
from rl.run.checkpoint import complete_checkpoints
from tests.system.forks import ROOT, free_port, run_command, run_ranks
from tests.system.test_deepspeed_engine import (
    KL_COEF,
    OBJECTIVE,
    POLICY,
    SAMPLES,
    TEMPERATURE,
    TOLERANCE,
    TREES,
    make_model,
    make_spec,
    message_of,
    norm_of,
    plain_logprobs,
    plain_training,
    weights_of,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LORA = replace(POLICY, lora=LoraConfig(rank=4, alpha=8))


def optimizer_numbers(engine: TrainEngine) -> int:
    """Numbers that this rank's optimizer holds: master weights with two moments."""
    state: Any = engine._engine.optimizer.optimizer.state
    return sum(t.numel() for of_one in state.values() for t in of_one.values() if t.numel() > 1)


def train(rank: int, num_ranks: int, directory: Path, port: int) -> dict[str, Any]:
    """Three updates; then the third again, from a checkpoint."""
    minibatch = build_minibatch(SAMPLES, replace(TREES, num_ranks=num_ranks), group_of=2)
    batch, norm = minibatch.microbatches_by_rank[rank], norm_of(minibatch)
    spec = make_spec(directory / "base", LORA, with_reference=True)
    engine = TrainEngine(spec, rank, num_ranks, "127.0.0.1", port)
    old = engine.outputs(batch)
    result: dict[str, Any] = {"initial": weights_of(engine), "logprobs": old}
    engine.save_adapter(directory / "start")
    reports = [engine.update(batch, None, OBJECTIVE, norm)]
    reports.append(engine.update(batch, old, OBJECTIVE, norm))
    engine.save_checkpoint(directory / "checkpoint")
    reports.append(engine.update(batch, old, OBJECTIVE, norm))
    result |= {"reports": reports, "weights": weights_of(engine), "after": engine.outputs(batch)}
    model = engine._engine.module.model
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapter_parameters(model).values()}
    result["num_trained"] = sum(p.ds_numel for p in trained)
    result["num_in_optimizer"] = optimizer_numbers(engine)
    engine.save_adapter(directory / "adapter")
    engine.save_hf(directory / "hf")
    engine.close()

    engine = TrainEngine(spec, rank, num_ranks, "127.0.0.1", port)
    engine.load_checkpoint(directory / "checkpoint")
    result["resumed_report"] = engine.update(batch, old, OBJECTIVE, norm)
    result["resumed"] = weights_of(engine)
    engine.spec = replace(spec, model_path=str(directory / "other"))
    result["other_base"] = message_of(
        UserError, lambda: engine.load_checkpoint(directory / "checkpoint")
    )
    engine.close()
    full = make_spec(directory / "base", with_reference=True)
    engine = TrainEngine(full, rank, num_ranks, "127.0.0.1", port)
    result["full_logprobs"] = engine.outputs(batch)
    engine.close()
    return result


def worker(rank: int, num_ranks: int, directory: Path, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks
    )
    torch.save(train(rank, num_ranks, directory, port), directory / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[1, 2])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """Directory and results by rank."""
    num_ranks: int = request.param
    directory = tmp_path_factory.mktemp("adapters")
    make_model(directory / "base")
    make_model(directory / "other", seed=2)
    run_ranks(worker, num_ranks, num_ranks, directory, free_port())
    return directory, [
        torch.load(directory / f"rank{rank}.pt", weights_only=False) for rank in range(num_ranks)
    ]


def base_of(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.float32).eval()


def test_before_the_first_step_the_policy_is_its_base_bit_for_bit(run):
    directory, results = run
    named = dict(base_of(directory).named_parameters())
    for result in results:
        assert all(torch.equal(result["initial"][name], p) for name, p in named.items())
        for ours, full in zip(result["logprobs"], result["full_logprobs"], strict=True):
            assert (ours == full).all()
        assert result["reports"][0].metrics["policy/ref_kl"] == 0


def test_updates_are_those_of_plain_peft_one_sample_at_a_time(run):
    directory, results = run
    model: Any = PeftModel.from_pretrained(
        base_of(directory), directory / "start", is_trainable=True
    )
    with torch.no_grad():
        old = [plain_logprobs(model, sample, TEMPERATURE) for sample in SAMPLES]
    num_tokens = sum(len(old_T) for old_T in old)

    def loss_of(step: int) -> Tensor:
        total = torch.zeros(())
        for sample, old_T in zip(SAMPLES, old, strict=True):
            logprobs_T = plain_logprobs(model, sample, TEMPERATURE)
            before_T = logprobs_T.detach() if step == 0 else old_T
            ratio_T = (logprobs_T - before_T).exp()
            surrogate_T = torch.minimum(
                ratio_T * sample.advantage, ratio_T.clamp(0.8, 1.28) * sample.advantage
            )
            gap_T = old_T - logprobs_T  # the base is the reference
            total = total + (KL_COEF * (gap_T.exp() - 1 - gap_T) - surrogate_T).sum()
        return total / num_tokens

    losses, norms = plain_training(model, loss_of)
    reports = results[0]["reports"]
    assert [r.metrics["policy/loss"] for r in reports] == pytest.approx(losses, abs=1e-6)
    assert [r.metrics["policy/grad_norm"] for r in reports] == pytest.approx(norms, rel=1e-4)
    assert reports[2].metrics["policy/ref_kl"] > 1e-6
    merged = dict(model.merge_and_unload().named_parameters())
    for name, parameter in merged.items():
        found = results[0]["weights"][name]
        torch.testing.assert_close(found, parameter.detach(), atol=TOLERANCE, rtol=0)


def test_engines_and_exports_get_what_peft_merges(run):
    directory, results = run
    read = PeftModel.from_pretrained(base_of(directory), directory / "adapter")
    merged = dict(read.merge_and_unload().named_parameters())
    exported = {
        name: tensor
        for file in (directory / "hf").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert exported.keys() == merged.keys()
    for name, parameter in merged.items():
        torch.testing.assert_close(exported[name], parameter.detach(), atol=1e-6, rtol=0)
        assert all(torch.equal(result["weights"][name], exported[name]) for result in results)
    changed = {n for n, p in base_of(directory).named_parameters() if not p.equal(exported[n])}
    assert len(changed) == 2 * 7  # layers of two blocks


def test_the_exported_policy_says_what_the_ranks_say(run):
    directory, results = run
    exported = AutoModelForCausalLM.from_pretrained(directory / "hf", dtype=torch.float32).eval()
    with_adapter: Any = PeftModel.from_pretrained(base_of(directory), directory / "adapter").eval()
    for model in (exported, with_adapter):
        with torch.no_grad():
            expected = [plain_logprobs(model, sample, TEMPERATURE) for sample in SAMPLES]
        total = sum(float(values.sum()) for result in results for values in result["after"])
        assert total == pytest.approx(sum(float(e.sum()) for e in expected), abs=1e-2)


def test_the_optimizer_holds_the_adapters_alone(run):
    _, results = run
    num = results[0]["num_trained"]
    sizes = [(32, 32), (16, 32), (16, 32), (32, 32), *[(64, 32)] * 2, (32, 64)]
    assert num == 2 * 4 * sum(map(sum, sizes))
    held = sum(result["num_in_optimizer"] for result in results)
    assert 2 * num <= held <= 2.1 * num  # two moments; partitions are padded


def test_a_resumed_training_is_the_same_bit_for_bit(run):
    directory, results = run
    for result in results:
        assert result["resumed_report"] == result["reports"][2]
        assert all(torch.equal(result["resumed"][n], w) for n, w in result["weights"].items())
    saved = sum(file.stat().st_size for file in (directory / "checkpoint/zero3").iterdir())
    assert saved < 4 * (24 * results[0]["num_trained"])  # nothing of the base


def test_a_checkpoint_is_refused_beside_another_base(run):
    for result in run[1]:
        assert "other is not the model that the adapters of " in result["other_base"]


def test_a_run_of_adapters_learns_and_leaves_a_policy_that_is_evaluated_as_any(
    tmp_path: Path, shared_ray: dict[str, str]
):
    done = run_command(
        *("launch/train.py", "experiment=quickstart", "policy.lora.rank=8"),
        *("policy.ranks=1", "policy.lr=1e-3", "algorithm.num_steps=2", "data.num_eval=4"),
        *("algorithm.prompts_per_step=4", "data.num_train=64", "checkpoint.every=1"),
        *("probe.every=0", f"output_dir={tmp_path}", "name=lora"),
        env=shared_ray,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = tmp_path / "quickstart/lora"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["policy/lr"] for step in steps] == [1e-3, 1e-3]
    assert all(0 < step["policy/grad_norm"] < math.inf for step in steps)
    assert all(step["rollout/mismatch_kl"] < 1e-4 for step in steps)  # engines have the sums
    assert steps[0]["policy/ref_kl"] < 1e-9 < steps[1]["policy/ref_kl"]
    checkpoint = complete_checkpoints(folder / "checkpoints")[-1].directory
    assert (checkpoint / "adapter/adapter_config.json").is_file()
    assert not list(checkpoint.glob("**/model*.safetensors"))

    merged = tmp_path / "merged"
    done = run_command("launch/merge_adapter.py", f"input={folder}/adapter", f"output={merged}")
    assert done.returncode == 0, done.stderr[-3000:]
    ours = load_file(next((folder / "hf").glob("*.safetensors")))
    theirs = load_file(merged / "model.safetensors")
    moved = 0.0
    base = load_file(ROOT / "assets/minipy/policy/model.safetensors")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=0)
        moved = max(moved, float((tensor - base[name].float()).abs().max()))
    # Two steps of Adam move B from 0 by twice the learning rate at most; A is within 0.1.
    assert 1e-5 < moved < 2 * 1e-3 * 0.1 * 8 * (32 / 8)
