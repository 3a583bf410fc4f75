"""Arguments that a run passes through to vLLM and DeepSpeed, checked before anything starts.

What a key of ours says already is refused, with the key; what is left is shown to the library's own
classes, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from actors.engines.given import Library
from conf.errors import UserError, in_one_line
from conf.schema import Config

_DEADLINE_S = 300.0  # of loading a library

# Arguments of vLLM, and the keys that say the same; {} is the group.
_VLLM_KEYS = {
    "max_num_seqs": "{}.max_num_seqs",
    "tensor_parallel_size": "{}.tensor_parallel",
    "gpu_memory_utilization": "{}.gpu_memory_utilization",
    "kv_cache_memory_bytes": "{}.kv_cache_gib",
    "seed": "seed",
    "enable_sleep_mode": "placement.colocate",
    "distributed_executor_backend": "placement.kind",
    "pipeline_parallel_size": "placement.kind",
    "data_parallel_size": "{}.engines",
}
_OF_GROUP = {
    "rollout": {
        "model": "model.path",
        "tokenizer": "model.path",
        "dtype": "model.dtype",
        "max_model_len": "model.max_prompt_tokens and model.max_completion_tokens",
    },
    "reward": {
        "model": "reward.model",
        "tokenizer": "reward.model",
        "dtype": "reward.dtype",
        "max_model_len": "reward.max_tokens",
        "data_parallel_size": "reward.shards",
    },
}
# What the engines are asked relies on these, so nothing else is possible.
_VLLM_FIXED = {
    "runner": "rollout engines generate, and shards of the reward model pool",
    "skip_tokenizer_init": "texts are encoded by the actors",
    "disable_log_stats": "the gauges read them",
    "stat_loggers": "the gauges read them",
    "generation_config": "sampling is that of rollout and evaluation",
    "logprobs_mode": "log-probs are of the distribution that is sampled from",
    "max_logprobs": "as many as rollout.top_k may ask for",
    "hf_overrides": "names of architectures are corrected by it",
    "weight_transfer_config": "weights travel as the placement has it",
    "trust_remote_code": "code of a model directory is never run",
    "quantization": "weights are published in model.dtype, and scores are read in reward.dtype",
}
_CPU_FIXED = {
    "enable_chunked_prefill": "a CPU generator cannot be rewound, as the next chunk of a prompt "
    "asks for",
}
_DEEPSPEED_KEYS = {
    "train_batch_size": "algorithm.prompts_per_step",
    "train_micro_batch_size_per_gpu": "policy.microbatch_tokens",
    "gradient_accumulation_steps": "policy.microbatch_tokens",
    "gradient_clipping": "policy.grad_clip",
    "optimizer": "policy.lr and its neighbours",
    "scheduler": "policy.lr_schedule",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "communication_data_type": "model.dtype",
    "data_types": "model.dtype",
    "activation_checkpointing": "policy.gradient_checkpointing",
}
_ZERO_KEYS = {
    "stage": "none: it is 3",
    "offload_optimizer": "policy.offload_optimizer",
    "offload_param": "policy.offload_params",
    "cpu_offload": "policy.offload_optimizer",
    "stage3_param_persistence_threshold": "none: vectors are kept whole",
}


def check_engine_args(cfg: Config) -> None:
    """Refuse arguments of engines that contradict the run, or that the library does not take.

    Raises:
        UserError: with a line for each.
    """
    faults: list[str] = []
    if cfg.rollout.engine_args:
        faults += _vllm_faults(cfg, "rollout", cfg.rollout.engine_args)
    if cfg.reward.engine_args and cfg.reward.uses_model:
        faults += _vllm_faults(cfg, "reward", cfg.reward.engine_args)
    if cfg.policy.deepspeed:
        faults += _deepspeed_faults(cfg.policy.deepspeed)
    if faults:
        raise UserError("\n".join(faults))


def _vllm_faults(
    cfg: Config, group: Literal["rollout", "reward"], given: Mapping[str, Any]
) -> list[str]:
    keys = {name: key.format(group) for name, key in _VLLM_KEYS.items()} | _OF_GROUP[group]
    fixed = _VLLM_FIXED | (_CPU_FIXED if cfg.placement.device == "cpu" else {})
    place = f"{group}.engine_args"
    found = list(_said(place, given, keys))
    found += [
        f"{place}.{name}: cannot be given: {fixed[name]} (leave it out)"
        for name in given
        if name in fixed
    ]
    return found or _asked_of("vllm", place, given)


def _deepspeed_faults(given: Mapping[str, Any]) -> list[str]:
    place = "policy.deepspeed"
    found = list(_said(place, given, _DEEPSPEED_KEYS))
    zero = given.get("zero_optimization")
    if isinstance(zero, Mapping):
        inner = cast("Mapping[str, Any]", zero)
        found += _said(f"{place}.zero_optimization", inner, _ZERO_KEYS)
    return found or _asked_of("deepspeed", place, given)


def _said(place: str, given: Mapping[str, Any], keys: Mapping[str, str]) -> Iterator[str]:
    for name in given:
        if name in keys:
            yield f"{place}.{name}: is said by a key of the run: {keys[name]} (leave it out here)"


def _asked_of(library: Library, place: str, given: Mapping[str, Any]) -> list[str]:
    """What the library's own classes say is wrong."""
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "actors.engines.given"],
            input=json.dumps([library, given]),
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=True,
        )
        found: list[list[str]] = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        told = getattr(error, "stderr", "") or str(error)
        return [f"{place}: {library} cannot be asked: {in_one_line(Exception(told[-500:]))}"]
    return [f"{place}.{name}: {why}" for name, why in found]
