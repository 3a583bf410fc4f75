"""Export of the models of a whole loop: half the bytes, and a card that says how they were made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from actors.engines.stored.saved_model import copy_generation, copy_tokenizer, write_config
from conf.schema import RewardConfig
from reward.model.files import architectures_of
from reward.model.golden import GOLDEN_SCORES
from reward.model.safetensors_files import SINGLE
from reward.model.text_path import TextPath
from reward.train.pair_batches import write_golden_scores
from rl.base.console import Console
from rl.base.files import replace_file, replace_json
from rl.base.versions import tree_commit
from rl.run.start.claim import move_aside

_CARD = """# {title}

{about}

| | |
|---|---|
| command | `python launch/train.py experiment=whole_loop seed={seed} loop.export_dir=...` |
| seed | {seed} |
| commit | {commit} |
| weights | float16 (trained in float32) |
| labels | {labels} |

Figures: {figures}
"""


@dataclass(frozen=True, slots=True)
class _Made:
    """A model of the loop, and what it learned from."""

    title: str
    labels: str


_POLICY = _Made(
    "Warm-start policy for minipy", "given answers, of which `loop.warm_corrupt` are made wrong"
)
_REWARD_MODEL = _Made("Reward model for minipy", "pairs of programs that gold tests tell apart")


def export_models(  # noqa: PLR0913 - two models, and where from and to
    policy: Path,
    reward_model: Path,
    target: Path,
    reward: RewardConfig,
    seed: int,
    *,
    console: Console,
) -> None:
    """Write `target/policy` and `target/rm` with float16 weights and cards."""
    rm_target = target / "rm"
    _export(policy, target / "policy", seed, _POLICY, console)
    _export(reward_model, rm_target, seed, _REWARD_MODEL, console)
    # The rounded weights score a little differently, so their golden scores are computed again.
    probes = json.loads((reward_model / GOLDEN_SCORES).read_text(encoding="utf-8"))
    text_path = TextPath.load(str(rm_target), reward.adapter, reward.max_tokens)
    write_golden_scores(rm_target, text_path, [(p["question"], p["code"]) for p in probes])


def _export(source: Path, target: Path, seed: int, made: _Made, console: Console) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        aside = move_aside(target, console.warn)
        console.say(f"{target} was there already; it is kept in {aside}")
    tensors = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for file in sorted(source.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, target / SINGLE, metadata={"format": "pt"})
    write_config(source, target, architectures_of(source)[0], "float16", {})
    copy_tokenizer(source, target)
    copy_generation(source, target)
    record = json.loads((source / "stage.json").read_text(encoding="utf-8"))
    replace_json(target / "stage.json", record, indent=1)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in record["figures"].items())
    card = _CARD.format(
        title=made.title,
        labels=made.labels,
        about="Qwen3 architecture, 0.85 M parameters; made by the stages of the command below.",
        seed=seed,
        commit=tree_commit(),
        figures=figures,
    )
    replace_file(target / "README.md", card)
