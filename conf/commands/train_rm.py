"""Arguments of `launch/train_rm.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import (
    MAX_ACTORS,
    AdapterName,
    Attention,
    Dtype,
    PlacementName,
    Resume,
    SharePrefix,
    key,
)


@dataclass(frozen=True, kw_only=True)
class TrainRmArgs:
    """What `launch/train_rm.py` takes."""

    data: str = key(
        "preference pairs: a directory of launch/mine_pairs.py, a parquet file, or a hub id"
    )
    model: str = key("directory or hub id of the base: a causal language model or a classifier")
    output: str = key("directory of the reward model")
    validation_share: float = key(
        "share of the problems held out, where the data have no validation part", 0.1, ge=0, le=1
    )
    adapter: AdapterName = key(
        "family of the reward model: system prompt and template", "sequence_classifier"
    )
    system: str | None = key(
        "file with the system turn that the reward model is trained with and always asked with",
        None,
    )
    max_tokens: int | None = key(
        "context of the reward model, problem and code, in tokens; longer pairs are left out; "
        "null is the model's own, at most 4096",
        None,
        ge=8,
    )
    dtype: Literal["auto", Dtype] = key(
        "data type of weights and activations; auto is float32 on a CPU, else bfloat16", "auto"
    )
    lr: float | None = key(
        "peak learning rate; null goes by the number of parameters", None, gt=0, le=1
    )
    epochs: int | None = key(
        "passes over the pairs; null goes by the number of parameters: 6 below 10 million, "
        "1 above a billion, else 2",
        None,
        ge=1,
    )
    batch_pairs: int = key("pairs of one optimizer step", 64, ge=1)
    weight_decay: float = key("weight decay of AdamW", 0.0, ge=0, le=1)
    margin: float = key("margin by which the chosen score has to be higher", 0.0, ge=0)
    centring: float = key("weight of (chosen + rejected score)^2", 1e-4, ge=0)
    lm_coef: float = key("weight of the language-model loss on the chosen code", 0.0, ge=0)
    share_prefix: SharePrefix = key(
        "whether both programs of a pair share one copy of the problem; auto does where it "
        "saves a tenth of the tokens",
        "auto",
    )
    evaluate_every: int | None = key(
        "steps between validations; the best model is kept; null is an eighth of the training",
        None,
        ge=1,
    )
    checkpoint_every: int = key("steps between checkpoints; 0 keeps none", 0, ge=0)
    resume: Resume = key(
        "whether an earlier training is continued after its newest checkpoint (auto), or a new "
        "one is started, which overwrites none (never)",
        "never",
    )
    overwrite: bool = key(
        "whether a model or a training in the output is moved aside, to OUTPUT.old-DATE-TIME", False
    )
    seed: int = key("seed of the order, the split and a new score head", 0, ge=0)
    placement: PlacementName = key("layout of the ranks", "laptop")
    ranks: int | None = key(
        "ZeRO-3 ranks; null is 2 on a laptop, 1 on one GPU, else 8", None, ge=1, le=MAX_ACTORS
    )
    cpu_threads: int = key("threads of one rank on a CPU", 1, ge=1)
    microbatch_tokens: int | None = key(
        "tokens of one forward/backward of a rank, at least two contexts; null goes by the model: "
        "activations of 2 GiB on a CPU, else 16",
        None,
        ge=16,
    )
    attention: Attention = key("attention kernel; flash attention shares no prefixes", "sdpa")
    gradient_checkpointing: bool = key(
        "whether activations are recomputed in the backward pass", False
    )
    offload_optimizer: bool = key("whether the optimizer state is kept in host memory", False)
    dry_run: bool = key("whether the layout of the ranks is shown and nothing started", False)
