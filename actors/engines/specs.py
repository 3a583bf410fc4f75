"""Specifications of the engines: all that makes one, as plain values that cross actor boundaries.

Nothing heavy is imported here, so that whoever plans, starts or calls an engine loads none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from conf.schema import Device, Dtype, PolicyConfig
from rl.types import Finish, FloatArray, IntArray

Runner = Literal["generate", "pooling"]
Head = Literal["lm", "score", "score_lm"]
WeightBackend = Literal["host_memory", "nccl", "ipc"]

STATE_FILE = "engine.json"  # of a checkpoint: what is not in the files of DeepSpeed


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One vLLM engine, for sampling (`generate`) or for scoring (`pooling`)."""

    model: str
    runner: Runner
    device: Device
    dtype: Dtype
    max_model_len: int  # tokens
    max_num_seqs: int
    tensor_parallel: int
    gpu_memory_utilization: float
    kv_cache_gib: float  # CPU only
    cpu_threads: int  # CPU only
    sleep_mode: bool  # the device is shared in turns
    seed: int
    weight_backend: WeightBackend | None = None  # None: its weights stay what they are
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])  # arguments of a user


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """One training engine; the same on all ranks."""

    model_path: str
    head: Head = "lm"  # "score_lm": scores, and log-probs where the LM regulariser reads
    dtype: Dtype = "float32"
    device: Device = "cpu"
    policy: PolicyConfig  # optimizer, kernels, memory, deadline
    total_steps: int  # optimizer steps; the cosine ends there
    temperature: float = 1.0  # logits are divided by it, as the rollout engine does
    with_reference: bool = False  # also hold a frozen copy of the initial model
    chat_template: str | None = None  # saved in place of the tokenizer's own
    pad_token_id: int | None = None  # saved in place of the model's own
    seed: int = 0  # of a score head that the checkpoint lacks
    profile_dir: str = ""  # where traces of `policy.profile_steps` go


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one prompt is sampled."""

    num: int  # completions
    max_tokens: int
    temperature: float
    seed: int
    top_p: float = 1.0
    top_k: int = -1
    stop_token_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """One completion as the engine sampled it."""

    token_ids: IntArray  # [T]
    logprobs: FloatArray  # [T] f32, of the distribution that was sampled from
    support_TK: IntArray | None  # tokens sampled among, -1 where fewer; None: not recorded
    finish: Finish  # STOP: a stop token was sampled; it is the last of `token_ids`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledGroup:
    """All completions of one request."""

    completions: tuple[Sampled, ...]
    policy_version: int  # of the weights that sampled every token
