"""Training engine of one data-parallel rank: DeepSpeed ZeRO-3. The only importer of deepspeed.

All ranks hold one engine each and call the same methods in the same order: parameters are gathered
layer by layer inside every forward, so a rank that calls alone waits until the deadline. One engine
per process and no Ray in here: `actors.policy` wraps it in an actor.

Axes: R rows, L tokens of a row, N positions with a loss, H hidden size, V vocabulary.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from rl.errors import NonFiniteError, UserError
from rl.loss import BatchNorm, MicrobatchTensors, Objective
from rl.types import FloatArray, Microbatch, UpdateReport

# DeepSpeed reads this once, while it is imported; left alone it would probe.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed

# DeepSpeed compiles this op for a minute when its communication starts on CPU. Only
# `inference_all_reduce` uses it, which training never calls.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
# torch renamed two collectives; DeepSpeed calls the old names several times per layer.
warnings.filterwarnings(
    "ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", category=FutureWarning
)

_CHUNK_LOGITS = 2**26  # logits held at once by the LM head: 256 MiB in float32
_SHARD_BYTES = 4 * 2**30
_CHECKPOINT_TAG = "zero3"
_STATE_FILE = "engine.json"
# What some architectures do to logits after the LM head; `_LogprobHead` would leave it out.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """Everything that makes one engine; the same on all ranks.

    >>> spec = TrainSpec(model_path="m", lr=1e-3, warmup_steps=2, total_steps=10)
    >>> [lr_at(step, spec) for step in range(3)]
    [0.0005, 0.001, 0.001]
    """

    model_path: str
    gguf_file: str | None = None
    head: Literal["lm", "score"] = "lm"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    lr: float
    warmup_steps: int = 0
    lr_schedule: Literal["constant", "cosine"] = "constant"
    total_steps: int  # optimizer steps; the cosine ends there
    weight_decay: float = 0.0  # on every parameter
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    grad_clip: float = 1.0
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    offload_optimizer: bool = False
    offload_params: bool = False
    cpu_threads: int = 1
    temperature: float = 1.0  # logits are divided by it, as the rollout engine does
    with_reference: bool = False  # also hold a frozen copy of the initial model
    seed: int = 0  # of a score head that the checkpoint lacks
    deadline_s: float = 900.0  # longest wait of a rank for the others in one collective


def lr_at(step: int, spec: TrainSpec) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up, then constant or cosine."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    if spec.lr_schedule == "constant":
        return spec.lr
    length = max(1, spec.total_steps - spec.warmup_steps)
    progress = min(1.0, (step - spec.warmup_steps) / length)
    return spec.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


class _TargetLogprob(torch.autograd.Function):
    """log_softmax(hidden @ weight.T / temperature)[target] in float32, chunk by chunk.

    The [N, V] logits never exist as a whole, neither here nor in the backward pass, which computes
    them again. The chunks are inside one function, and not calls of a module, because the number of
    positions differs between ranks and ZeRO-3 gathers once per call.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        hidden_NH: Tensor,
        weight_VH: Tensor,
        target_N: Tensor,
        temperature: float,
    ) -> Tensor:
        logprob_N = hidden_NH.new_empty(len(hidden_NH), dtype=torch.float32)
        log_sum_N = torch.empty_like(logprob_N)
        for rows in _row_chunks(hidden_NH, weight_VH):
            logits = (hidden_NH[rows] @ weight_VH.T).float().div_(temperature)
            log_sum_N[rows] = logits.logsumexp(dim=-1)
            logprob_N[rows] = logits.gather(-1, target_N[rows, None]).squeeze(-1) - log_sum_N[rows]
        ctx.save_for_backward(hidden_NH, weight_VH, target_N, log_sum_N)
        ctx.temperature = temperature
        return logprob_N

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # one output, one gradient
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        grad_N: Tensor,
    ) -> tuple[Tensor, Tensor, None, None]:
        hidden_NH, weight_VH, target_N, log_sum_N = ctx.saved_tensors
        grad_hidden_NH = torch.empty_like(hidden_NH)
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        for rows in _row_chunks(hidden_NH, weight_VH):
            logits = (hidden_NH[rows] @ weight_VH.T).float().div_(ctx.temperature)
            # d logprob / d logits = one_hot(target) - softmax(logits)
            scale = grad_N[rows, None] / ctx.temperature
            grad = logits.sub_(log_sum_N[rows, None]).exp_().mul_(-scale)
            grad = grad.scatter_add_(-1, target_N[rows, None], scale).to(weight_VH.dtype)
            grad_hidden_NH[rows] = grad @ weight_VH
            grad_weight_VH += grad.T @ hidden_NH[rows]
        return grad_hidden_NH, grad_weight_VH.to(weight_VH.dtype), None, None


def _row_chunks(hidden_NH: Tensor, weight_VH: Tensor) -> Iterator[slice]:
    size = max(1, _CHUNK_LOGITS // len(weight_VH))
    return (slice(start, start + size) for start in range(0, len(hidden_NH), size))


class _LogprobHead(nn.Module):
    """Log-probs [R, L] of the targets; 0 where `loss_mask` is 0."""

    def __init__(self, weight_VH: nn.Parameter, temperature: float) -> None:
        super().__init__()
        self.weight = weight_VH  # owned, not borrowed: ZeRO-3 gathers what a module owns
        self.temperature = temperature

    def forward(self, hidden_RLH: Tensor, target_ids_RL: Tensor, loss_mask_RL: Tensor) -> Tensor:
        chosen_RL = loss_mask_RL > 0
        logprob_N = _TargetLogprob.apply(
            hidden_RLH[chosen_RL], self.weight, target_ids_RL[chosen_RL], self.temperature
        )
        out_RL = torch.zeros_like(loss_mask_RL)
        return out_RL.masked_scatter(chosen_RL, logprob_N)


class _ScoreHead(nn.Module):
    """Scores [R, L]: what a reward model would say if the text ended at that position."""

    def __init__(self, weight_1H: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight_1H

    def forward(self, hidden_RLH: Tensor, target_ids_RL: Tensor, loss_mask_RL: Tensor) -> Tensor:
        return nn.functional.linear(hidden_RLH.float(), self.weight.float()).squeeze(-1)


class _TrainModel(nn.Module):
    """A transformers model whose forward returns one float32 number per position, [R, L]."""

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__()
        self.model = model
        if spec.head == "lm":
            self.head = _LogprobHead(_lm_weight(model), spec.temperature)
        else:
            self.head = _ScoreHead(_score_weight(model))

    def forward(self, mb: MicrobatchTensors) -> Tensor:
        # Without a mask, transformers isolates the samples of a row where `position_ids` restart.
        hidden_RLH = self.model.base_model(
            input_ids=mb.token_ids_RL,
            position_ids=mb.position_ids_RL,
            attention_mask=None,
            use_cache=False,
        ).last_hidden_state
        return self.head(hidden_RLH, mb.target_ids_RL, mb.loss_mask_RL)


def _lm_weight(model: PreTrainedModel) -> nn.Parameter:
    head = model.get_output_embeddings()
    transforms = [
        name for name in _LOGIT_TRANSFORMS if getattr(model.config, name, None) not in (None, 1)
    ]
    if not isinstance(head, nn.Linear) or isinstance(head.bias, Tensor) or transforms:
        raise UserError(
            f"model.path: {type(model).__name__} has an LM head with "
            f"{', '.join(transforms) or 'a bias or a layer of its own'}; log-probs are computed "
            "from a plain linear head. Use an architecture with one (Qwen, Llama, ...)."
        )
    return cast(nn.Parameter, head.weight)


def _score_weight(model: PreTrainedModel) -> nn.Parameter:
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or isinstance(head.bias, Tensor):
        raise UserError(
            f"model: {type(model).__name__} has no linear `score` head without bias; "
            "use an architecture whose sequence classifier has one (Qwen, Llama, ...)."
        )
    return cast(nn.Parameter, head.weight)


def _load_config(spec: TrainSpec) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(spec.model_path, gguf_file=spec.gguf_file)
    if spec.head == "score":
        config.num_labels = 1
    return config


def _load_model(spec: TrainSpec, ds_config: dict[str, Any]) -> _TrainModel:
    """Load safetensors or GGUF without dropout; ZeRO-3 partitions each layer as it is made."""
    config = _load_config(spec)
    for name in config.to_dict():
        if "dropout" in name or name.endswith("_pdrop"):
            setattr(config, name, 0.0)
    kwargs: dict[str, Any] = {
        "config": config,
        "dtype": getattr(torch, spec.dtype),
        "attn_implementation": spec.attention,
    }
    if spec.gguf_file is None:
        kwargs["use_safetensors"] = True
    else:
        kwargs |= {
            "gguf_file": spec.gguf_file,
            "quantization_config": GgufConfig(dequantize=True),
        }
    factory = AutoModelForCausalLM if spec.head == "lm" else AutoModelForSequenceClassification
    torch.manual_seed(spec.seed)
    zero_init = HfDeepSpeedConfig(ds_config)  # in force for as long as it is referenced
    model = factory.from_pretrained(spec.model_path, **kwargs)
    del zero_init
    _restore_rotary_buffers(model)
    return _TrainModel(model, spec)


def _restore_rotary_buffers(model: PreTrainedModel) -> None:
    """Compute rotary frequencies in float32 again, as transformers has them at every dtype.

    `zero.Init` rounds each new floating-point tensor to the dtype of the parameters. In bfloat16
    that turns position 500 by another 0.1 rad, and the policy is no longer the one that samples.
    """
    for module in model.modules():
        inv_freq = getattr(module, "inv_freq", None)
        if isinstance(inv_freq, Tensor) and inv_freq.dtype != torch.float32:
            make: Any = type(module)
            for name, buffer in make(config=module.config).named_buffers():
                module.register_buffer(name, buffer.to(inv_freq.device), persistent=False)


def _ds_config(spec: TrainSpec, world_size: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": world_size,
        "gradient_clipping": spec.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": spec.device == "cuda",
            "offload_optimizer": {"device": "cpu" if spec.offload_optimizer else "none"},
            "offload_param": {"device": "cpu" if spec.offload_params else "none"},
        },
    }
    if spec.dtype == "bfloat16":
        # Master weights are float32. Gradients are summed over ranks and microbatches in float32
        # too: bfloat16 would lose most of a small contribution.
        config |= {
            "bf16": {"enabled": True},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
        }
    return config


def _persist_vectors(ds_config: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Keep norm weights and biases whole on each rank; every larger parameter is partitioned."""
    sizes = [_full_shape(p).numel() for p in model.parameters() if len(_full_shape(p)) == 1]
    zero = ds_config["zero_optimization"] | {
        "stage3_param_persistence_threshold": max(sizes, default=0)
    }
    return ds_config | {"zero_optimization": zero}


def _full_shape(parameter: nn.Parameter) -> torch.Size:
    """Return the shape before ZeRO-3 took the parameter apart."""
    return getattr(parameter, "ds_shape", parameter.shape)


class TrainEngine:
    """One rank: log-probs, optimizer steps, whole parameters, checkpoints; called in lockstep."""

    def __init__(
        self, spec: TrainSpec, rank: int, world_size: int, master_addr: str, master_port: int
    ) -> None:
        self.spec = spec
        self.rank = rank
        self.world_size = world_size
        self._num_updates = 0
        self._device = self._start(master_addr, master_port)
        self._engine = self._initialize(trains=True)
        self._reference = self._initialize(trains=False) if spec.with_reference else None
        self._parameters = self._name_parameters()

    def logprobs(self, microbatches: Sequence[Microbatch]) -> tuple[FloatArray, ...]:
        """Outputs [R, L] of the current policy for each microbatch; 0 off the mask.

        For a score head these are the scores.
        """
        with torch.no_grad():
            return tuple(
                self._engine(MicrobatchTensors.from_microbatch(mb, self._device)).cpu().numpy()
                for mb in microbatches
            )

    def update(
        self,
        microbatches: Sequence[Microbatch],
        old_logprobs: Sequence[FloatArray] | None,
        objective: Objective,
        norm: BatchNorm,
    ) -> UpdateReport:
        """One optimizer step; the report's metrics are sums over ranks and microbatches.

        Every rank passes equally many microbatches. `norm` holds the denominators of the whole
        minibatch. NonFiniteError on all ranks, with weights and optimizer untouched, when the loss
        or a gradient is NaN or infinite.
        """
        self._engine.optimizer.zero_grad()  # drops what a failed update may have accumulated
        sums: dict[str, Tensor] = {}
        suspects: set[int] = set()
        for index, microbatch in enumerate(microbatches):
            mb = MicrobatchTensors.from_microbatch(microbatch, self._device)
            old_RL = (
                None if old_logprobs is None else torch.tensor(old_logprobs[index]).to(self._device)
            )
            self._engine.set_gradient_accumulation_boundary(index == len(microbatches) - 1)
            ref_RL = self._reference_outputs(mb)
            outputs_RL = self._engine(mb)
            loss, metrics = objective(outputs_RL, mb, old_RL, ref_RL, norm)
            # Losses are shares of a sum over ranks, but ZeRO averages gradients over ranks.
            self._engine.backward(loss * self.world_size)
            suspects |= _suspects(outputs_RL, mb)
            for name, value in (metrics | {"loss": loss.detach()}).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        totals = self._sum_over_ranks(sums)
        if not math.isfinite(totals.pop("loss")):
            self._raise_non_finite("loss", suspects)
        lr = lr_at(self._num_updates, self.spec)
        self._engine.optimizer.set_lr(lr)
        self._engine.step()
        if not self._engine.was_step_applied():  # DeepSpeed skips a step whose norm is not finite
            self._raise_non_finite("gradient norm", suspects)
        self._num_updates += 1
        grad_norm = float(self._engine.get_global_grad_norm())
        return UpdateReport(metrics=totals | {"policy/grad_norm": grad_norm}, lr=lr)

    def parameter_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, shape) of what `iter_full_parameters` yields, in its order."""
        return [
            (name, str(p.dtype).removeprefix("torch."), tuple(_full_shape(p)))
            for names, p in self._parameters
            for name in names
        ]

    def iter_full_parameters(self, bucket_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Yield whole parameters under their Hugging Face names, about `bucket_bytes` at a time.

        All ranks iterate in lockstep, between steps. Tied embeddings come under both names, because
        vLLM keeps its old head otherwise. A tensor is valid until the next bucket.
        """
        for bucket in self._buckets(bucket_bytes):
            with deepspeed.zero.GatheredParameters([p for _, p in bucket]):
                yield [(name, p.detach()) for names, p in bucket for name in names]

    def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory that `from_pretrained` loads; it appears as a whole.

        All ranks call; rank 0 writes safetensors shard by shard, so it never holds the whole model.
        """
        stage = directory.with_name(f".{directory.name}.{uuid4().hex}")
        buckets = self._buckets(_SHARD_BYTES)
        weight_map: dict[str, str] = {}
        if self.rank == 0:
            stage.mkdir(parents=True)
        for number, bucket in enumerate(buckets, start=1):
            shard = f"model-{number:05d}-of-{len(buckets):05d}.safetensors"
            with deepspeed.zero.GatheredParameters([p for _, p in bucket]):
                if self.rank == 0:
                    tensors = {names[0]: p.detach().cpu().contiguous() for names, p in bucket}
                    save_file(tensors, stage / shard, metadata={"format": "pt"})
                    weight_map |= dict.fromkeys(tensors, shard)
        if self.rank == 0:
            total = sum(_num_bytes(p) for _, p in self._parameters)
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (stage / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
            self._save_config_and_tokenizer(stage)
            _replace_directory(stage, directory)
        dist.barrier()

    def save_checkpoint(self, directory: Path) -> None:
        """Write parameters, optimizer state and step of all ranks into `directory`.

        The files are pickles of this world size: load only what this run wrote. The caller stages,
        verifies and commits the directory.
        """
        self._engine.save_checkpoint(str(directory), tag=_CHECKPOINT_TAG, save_latest=False)
        if self.rank == 0:
            state = {"world_size": self.world_size, "num_updates": self._num_updates}
            (directory / _STATE_FILE).write_text(json.dumps(state))
        dist.barrier()

    def load_checkpoint(self, directory: Path) -> None:
        """Continue exactly where `save_checkpoint` stopped. UserError when it does not fit."""
        path = directory / _STATE_FILE
        if not path.is_file():
            raise UserError(f"{directory}: not a training checkpoint; {_STATE_FILE} is missing")
        state = json.loads(path.read_text())
        if state["world_size"] != self.world_size:
            raise UserError(
                f"{directory}: written by policy.ranks={state['world_size']}, this run has "
                f"policy.ranks={self.world_size}; ZeRO-3 checkpoints load on the same number of "
                "ranks only. Start from the Hugging Face export beside it (model.path=.../hf)."
            )
        loaded, _ = self._engine.load_checkpoint(
            str(directory), tag=_CHECKPOINT_TAG, load_lr_scheduler_states=False
        )
        if loaded is None:
            raise UserError(f"{directory}: {_CHECKPOINT_TAG}/ of this training checkpoint is gone")
        self._num_updates = state["num_updates"]

    def partition_report(self) -> dict[str, int]:
        """Count parameter elements, to show what ZeRO-3 partitions.

        `full`: of the model. `local`: in this rank's partition. `replicated`: kept whole on every
        rank between steps as well (norm weights and biases).
        """
        parameters: list[Any] = [p for _, p in self._parameters]
        return {
            "full": sum(p.ds_numel for p in parameters),
            "local": sum(p.ds_tensor.numel() for p in parameters),
            "replicated": sum(p.ds_numel for p in parameters if p.ds_persist),
        }

    def close(self) -> None:
        """Free the engine and leave the process group that it joined."""
        for engine in (self._engine, self._reference):
            if engine is not None:
                engine.destroy()
        if self._owns_group:
            dist.destroy_process_group()

    def _start(self, master_addr: str, master_port: int) -> torch.device:
        """Join the ranks before DeepSpeed would: it binds a device, which has deadlocked others."""
        spec = self.spec
        accelerator = os.environ["DS_ACCELERATOR"]
        if accelerator != spec.device:
            raise UserError(
                f"placement.device={spec.device}, but DeepSpeed uses {accelerator} in this "
                "process; check CUDA_VISIBLE_DEVICES, DS_ACCELERATOR and the placement."
            )
        os.environ.setdefault("LOCAL_RANK", "0")  # Ray shows each actor its own device only
        if spec.device == "cpu":
            torch.set_num_threads(spec.cpu_threads)
            device = torch.device("cpu")
        else:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            dist.init_process_group(
                "gloo" if spec.device == "cpu" else "nccl",
                init_method=f"tcp://{master_addr}:{master_port}",
                rank=self.rank,
                world_size=self.world_size,
                timeout=timedelta(seconds=spec.deadline_s),
            )
        return device

    def _initialize(self, *, trains: bool) -> Any:  # noqa: ANN401 - deepspeed is not typed
        """Partition the initial model over the ranks, with or without an optimizer."""
        spec = self.spec
        config = _ds_config(spec, self.world_size)
        model = _load_model(spec, config)
        config = _persist_vectors(config, model)
        if not trains:
            config["zero_optimization"].pop("offload_optimizer")
            engine = deepspeed.initialize(model=model.requires_grad_(False), config=config)[0]
            engine.eval()
            return engine
        if spec.gradient_checkpointing:
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
        kwargs: dict[str, Any] = {
            "lr": spec.lr,
            "betas": (spec.adam_beta1, spec.adam_beta2),
            "weight_decay": spec.weight_decay,
        }
        if spec.offload_optimizer:
            optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam(model.parameters(), **kwargs)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), **kwargs)
        engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
        engine.train(spec.gradient_checkpointing)  # the only thing that asks for this mode
        return engine

    def _name_parameters(self) -> list[tuple[tuple[str, ...], nn.Parameter]]:
        """Name every parameter as in the checkpoint; the first name is the one that is saved."""
        model: PreTrainedModel = self._engine.module.model
        embeddings = model.get_input_embeddings()
        head = model.get_output_embeddings() if self.spec.head == "lm" else None
        tied = head is not None and head.weight is embeddings.weight
        return [
            ((name, "lm_head.weight") if tied and p is embeddings.weight else (name,), p)
            for name, p in model.named_parameters()
        ]

    def _buckets(self, max_bytes: int) -> list[list[tuple[tuple[str, ...], nn.Parameter]]]:
        """Split the parameters, in order, into runs of at most `max_bytes` (or one parameter)."""
        buckets: list[list[tuple[tuple[str, ...], nn.Parameter]]] = []
        size = 0
        for names, parameter in self._parameters:
            num_bytes = _num_bytes(parameter)
            if not buckets or size + num_bytes > max_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append((names, parameter))
            size += num_bytes
        return buckets

    def _reference_outputs(self, mb: MicrobatchTensors) -> Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            return self._reference(mb)

    def _sum_over_ranks(self, sums: dict[str, Tensor]) -> dict[str, float]:
        names = sorted(sums)
        vector = torch.stack([sums[name].double() for name in names])
        dist.all_reduce(vector)
        return dict(zip(names, vector.tolist(), strict=True))

    def _raise_non_finite(self, what: str, suspects: set[int]) -> None:
        """Raise NonFiniteError with the samples that any rank suspects, on every rank."""
        by_rank: list[Any] = [None] * self.world_size
        dist.all_gather_object(by_rank, suspects)
        samples = sorted(set[int]().union(*by_rank))
        raise NonFiniteError(
            f"{what} is NaN or infinite in optimizer step {self._num_updates}; samples of the "
            f"minibatch with such numbers: {samples or 'none, so the backward pass overflowed'}. "
            "The weights are as before the step. Lower policy.lr, or look at these samples."
        )

    def _save_config_and_tokenizer(self, directory: Path) -> None:
        spec = self.spec
        model: PreTrainedModel = self._engine.module.model
        tokenizer = AutoTokenizer.from_pretrained(spec.model_path, gguf_file=spec.gguf_file)
        config = _load_config(spec)
        config.architectures = [type(model).__name__]
        config.dtype = spec.dtype
        if config.pad_token_id is None:  # a sequence classifier finds the last token with it
            config.pad_token_id = (
                tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            )
        config.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        if model.can_generate() and model.generation_config is not None:
            model.generation_config.save_pretrained(directory)


def _num_bytes(parameter: nn.Parameter) -> int:
    return _full_shape(parameter).numel() * parameter.element_size()


def _suspects(outputs_RL: Tensor, mb: MicrobatchTensors) -> set[int]:
    """Samples with a NaN or infinity in what the model says, or in what it is trained on."""
    finite_RL = outputs_RL.isfinite() & mb.advantages_RL.isfinite()
    finite_RL &= mb.rollout_logprobs_RL.isfinite()
    return set(mb.sample_index_RL[~finite_RL].tolist()) - {-1}  # -1 is padding


def _replace_directory(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, which may exist."""
    old = target.with_name(f"{new.name}.old")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
