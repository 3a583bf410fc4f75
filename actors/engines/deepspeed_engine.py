"""Training engine of one data-parallel rank: DeepSpeed ZeRO-3. The only importer of deepspeed.

All ranks hold one engine each and call the same methods in the same order: parameters are gathered
layer by layer inside every forward, so a rank that calls alone waits until the deadline. One engine
per process and no Ray in here: `actors.groups.trainer` wraps it in an actor.

Axes: M labels of a microbatch.

One file: methods that all ranks call in lockstep, on one object.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from actors.engines.adapters import (
    Weight,
    adapter_parameters,
    add_adapters,
    base_digest,
    check_base,
    save_adapter_config,
    weights_of,
    without_adapters,
)
from actors.engines.forward_check import ForwardCheck, check_forward
from actors.engines.specs import STATE_FILE, TrainSpec
from actors.engines.stored.lockstep_writes import LockstepWrites
from actors.engines.stored.partitions import dealt_state
from actors.engines.train_model import (
    TrainModel,
    load_model,
    lr_at,
    plain_reader,
    rehearse_saving,
    restore_buffers,
    save_config_and_tokenizer,
    suspects,
)
from conf.errors import NonFiniteError, SaveError, UserError
from rl.loss import LossDenominators, MicrobatchTensors, Objective, Outputs
from rl.types import FloatArray, IntArray, Microbatch, UpdateReport

# DeepSpeed reads this once, while it is imported; left alone it would probe.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed

# DeepSpeed compiles this op for a minute when its communication starts on CPU. Only
# `inference_all_reduce` uses it, which training never calls. On a GPU there is no such op, and to
# read the table would run compilers.
if os.environ["DS_ACCELERATOR"] == "cpu":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
# torch renamed two collectives; DeepSpeed calls the old names several times per layer.
warnings.filterwarnings(
    "ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", category=FutureWarning
)

_SHARD_BYTES = 4 * 2**30
_CHECKPOINT_TAG = "zero3"


def _ds_config(spec: TrainSpec, world_size: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": world_size,
        "gradient_clipping": spec.policy.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": spec.device == "cuda",
            "offload_optimizer": {"device": "cpu" if spec.policy.offload_optimizer else "none"},
            "offload_param": {"device": "cpu" if spec.policy.offload_params else "none"},
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
    given = spec.policy.deepspeed or {}
    zero = config["zero_optimization"] | given.get("zero_optimization", {})
    return config | given | {"zero_optimization": zero}


def _load_partitioned(spec: TrainSpec, ds_config: dict[str, Any]) -> TrainModel:
    """Load the model; ZeRO-3 partitions each layer as it is made."""
    zero_init = HfDeepSpeedConfig(ds_config)  # in force for as long as it is referenced
    model = load_model(spec)
    del zero_init
    restore_buffers(model.model, spec)
    if spec.policy.lora.rank:
        add_adapters(model.model, spec.policy.lora, spec.model_path, spec.seed)
    return model


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


def _meeting_point(address: str, port: int, rank: int, world_size: int, timeout: timedelta) -> Any:  # noqa: ANN401 - torch exports none of its stores as a type
    """Where the ranks meet: rank 0 listens on its address, and not on all interfaces."""
    listener = socket.create_server((address, port)).detach() if rank == 0 else None
    return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage] - it is in torch's manual
        address, port, world_size, rank == 0, timeout=timeout, master_listen_fd=listener
    )


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
        if rank == 0:
            rehearse_saving(self._engine.module.model, spec)
        self._adapts = spec.policy.lora.rank > 0
        # Beside adapters the weights are still those of the reference.
        copies = spec.with_reference and not self._adapts
        self._reference = self._initialize(trains=False) if copies else None
        self._weights = self._name_weights()

    def outputs(self, microbatches: Sequence[Microbatch]) -> tuple[FloatArray, ...]:
        """Log-probs or scores [M] of the current weights, for each microbatch."""
        with torch.no_grad():
            return tuple(
                self._engine(self._tensors(mb)).values_M.cpu().numpy() for mb in microbatches
            )

    def update(
        self,
        microbatches: Sequence[Microbatch],
        old_logprobs: Sequence[FloatArray] | None,
        objective: Objective,
        norm: LossDenominators,
    ) -> UpdateReport:
        """One optimizer step; the report's metrics are sums over ranks and microbatches.

        Every rank passes equally many microbatches. `norm` holds the denominators of the whole
        minibatch. NonFiniteError on all ranks, with weights and optimizer untouched, when the loss
        or a gradient is NaN or infinite.
        """
        self._engine.optimizer.zero_grad()  # drops what a failed update may have accumulated
        sums: dict[str, Tensor] = {}
        suspected: set[int] = set()
        for index, microbatch in enumerate(microbatches):
            mb = self._tensors(microbatch)
            self._engine.set_gradient_accumulation_boundary(index == len(microbatches) - 1)
            ref_M = self._reference_values(mb)
            outputs: Outputs = self._engine(mb)
            old_M = (
                None if old_logprobs is None else torch.tensor(old_logprobs[index]).to(self._device)
            )
            loss, metrics = objective(outputs, mb, old_M, ref_M, norm)
            # Losses are shares of a sum over ranks, but ZeRO averages gradients over ranks.
            self._engine.backward(loss * self.world_size)
            suspected |= suspects(outputs, mb)
            for name, value in (metrics | {"loss": loss.detach()}).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        totals = self._sum_over_ranks(sums)
        if not math.isfinite(totals.pop("loss")):
            self._raise_non_finite("loss", suspected)
        lr = lr_at(self._num_updates, self.spec.policy, self.spec.total_steps)
        self._engine.optimizer.set_lr(lr)
        self._engine.step()
        if not self._engine.was_step_applied():  # DeepSpeed skips a step whose norm is not finite
            self._raise_non_finite("gradient norm", suspected)
        self._num_updates += 1
        grad_norm = float(self._engine.get_global_grad_norm())
        return UpdateReport(metrics=totals | {"policy/grad_norm": grad_norm}, lr=lr)

    def self_check(self, plain_bytes: int) -> ForwardCheck:
        """Compare every way to read few short samples; called in lockstep, before any update.

        Rank 0 also asks plain transformers, for weights of at most `plain_bytes`.
        """

        def forward(mb: Microbatch, **how: bool) -> FloatArray:
            with torch.no_grad():
                return self._engine(self._tensors(mb), **how).values_M.cpu().numpy()

        model: PreTrainedModel = self._engine.module.model
        config, scores = model.config, self.spec.head != "lm"
        text = config.get_text_config()
        ends = config.eos_token_id
        return check_forward(
            forward,
            lambda mb: forward(mb, own=True),
            vocab_size=text.vocab_size,
            forbidden=[
                token
                for token in [config.pad_token_id, *(ends if isinstance(ends, list) else [ends])]
                if token is not None
            ],
            scores=scores,
            dtype=self.spec.dtype,
            window=getattr(text, "sliding_window", None),
            plain=self._plain_reader(plain_bytes, scores=scores),
        )

    def parameter_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, shape) of what `iter_full_parameters` yields, in its order."""
        return [
            (name, str(w.base.dtype).removeprefix("torch."), tuple(_full_shape(w.base)))
            for w in self._weights
            for name in w.names
        ]

    def iter_full_parameters(self, bucket_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Yield whole parameters under their Hugging Face names, about `bucket_bytes` at a time.

        All ranks iterate in lockstep, between steps. Adapters are added to what they belong to.
        Tied embeddings come under both names, because vLLM keeps its old head otherwise. A tensor
        is valid until the next bucket.
        """
        for bucket in self._buckets(bucket_bytes):
            with deepspeed.zero.GatheredParameters([p for w in bucket for p in w.parts]):
                whole = [(w.names, w.whole()) for w in bucket]
                yield [(name, tensor) for names, tensor in whole for name in names]

    def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory that `from_pretrained` loads; the caller puts it in place.

        All ranks call; rank 0 writes safetensors shard by shard, so it never holds the whole model.
        SaveError on all ranks, which are as before, when the disk does not take it.
        """
        write = LockstepWrites()
        buckets = self._buckets(_SHARD_BYTES)
        weight_map: dict[str, str] = {}
        if self.rank == 0:
            write(lambda: directory.mkdir(parents=True, exist_ok=True))
        for number, bucket in enumerate(buckets, start=1):
            shard = f"model-{number:05d}-of-{len(buckets):05d}.safetensors"
            with deepspeed.zero.GatheredParameters([p for w in bucket for p in w.parts]):
                if self.rank == 0:
                    tensors = {w.names[0]: w.whole().cpu().contiguous() for w in bucket}
                    write(partial(save_file, tensors, directory / shard, {"format": "pt"}))
                    weight_map |= dict.fromkeys(tensors, shard)
        if self.rank == 0:
            total = sum(_num_bytes(w.base) for w in self._weights)
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            path = directory / "model.safetensors.index.json"
            write(lambda: path.write_text(json.dumps(index, indent=2)))
            model = self._engine.module.model
            write(lambda: save_config_and_tokenizer(model, self.spec, directory))
        self._agree(write, directory)

    def save_adapter(self, directory: Path) -> None:
        """Write the adapters as peft does; the caller puts the directory in place.

        All ranks call. SaveError on all ranks, which are as before, when the disk does not take it.
        """
        write = LockstepWrites()
        tensors: dict[str, Tensor] = {}
        for name, parameter in adapter_parameters(self._engine.module.model).items():
            with deepspeed.zero.GatheredParameters([parameter]):
                if self.rank == 0:
                    tensors[name] = parameter.detach().cpu().clone()
        if self.rank == 0:
            write(lambda: directory.mkdir(parents=True, exist_ok=True))
            path = directory / "adapter_model.safetensors"
            write(lambda: save_file(tensors, path, {"format": "pt"}))
            write(lambda: save_adapter_config(self._engine.module.model, directory))
        self._agree(write, directory)

    def save_checkpoint(self, directory: Path) -> None:
        """Write parameters, optimizer state and step of all ranks into `directory`.

        Beside adapters the frozen weights are left out, which are those of `model_path`.
        The files are pickles: load only what this run wrote. The caller stages, verifies and
        commits the directory. SaveError on all ranks, which are as before, when the
        disk does not take it.
        """
        write = LockstepWrites()
        writer = self._engine.checkpoint_engine
        # The scripts that DeepSpeed lays beside a checkpoint take room as well.
        writing = ((writer, "makedirs"), (writer, "save"), (self._engine, "_copy_recovery_script"))
        for owner, name in writing:
            method = getattr(owner, name)
            setattr(owner, name, lambda *args, to=method, **kw: write(partial(to, *args, **kw)))
        try:
            self._engine.save_checkpoint(
                str(directory),
                tag=_CHECKPOINT_TAG,
                save_latest=False,
                exclude_frozen_parameters=self._adapts,
            )
        finally:
            for owner, name in writing:
                delattr(owner, name)  # the method of its class again
        if self.rank == 0:
            state: dict[str, Any] = {
                "world_size": self.world_size,
                "num_updates": self._num_updates,
            }
            if self._adapts:
                state["base"] = base_digest(self.spec.model_path)
            write(lambda: (directory / STATE_FILE).write_text(json.dumps(state)))
        self._agree(write, directory)

    def load_checkpoint(self, directory: Path) -> None:
        """Continue exactly where `save_checkpoint` stopped, be it on another number of ranks.

        UserError when it does not fit.
        """
        path = directory / STATE_FILE
        if not path.is_file():
            raise UserError(f"{directory}: not a training checkpoint; {STATE_FILE} is missing")
        state = json.loads(path.read_text())
        if not (directory / _CHECKPOINT_TAG).is_dir():
            raise UserError(f"{directory}: {_CHECKPOINT_TAG}/ of this training checkpoint is gone")
        if self._adapts:
            check_base(directory, self.spec.model_path)
        if state["world_size"] == self.world_size:
            self._engine.load_checkpoint(
                str(directory),
                tag=_CHECKPOINT_TAG,
                load_module_strict=not self._adapts,  # which has no frozen weights
                load_lr_scheduler_states=False,
            )
        else:
            self._load_dealt(directory / _CHECKPOINT_TAG)
        self._num_updates = state["num_updates"]

    def _load_dealt(self, directory: Path) -> None:
        """Load the files of another number of ranks; what else is in them changes no step."""
        optimizer = self._engine.optimizer
        shapes = [
            {self._engine.param_names[p]: p.ds_shape for p in group}
            for group in optimizer.fp16_groups
        ]
        own = dealt_state(directory, shapes, self.rank, self.world_size)
        optimizer.checkpoint_event_prologue()
        optimizer.load_state_dict({self.rank: own})  # which reads that of its rank
        optimizer.checkpoint_event_epilogue()

    def give_way(self) -> None:
        """Give the device back what no tensor holds: torch keeps it for itself otherwise."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def partition_report(self) -> dict[str, int]:
        """Count parameter elements, to show what ZeRO-3 partitions.

        `full`: of the model. `local`: in this rank's partition. `replicated`: kept whole on every
        rank between steps as well (norm weights and biases).
        """
        parameters: list[Any] = [p for w in self._weights for p in w.parts]
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
            torch.set_num_threads(spec.policy.cpu_threads)
            device = torch.device("cpu")
        else:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            timeout = timedelta(seconds=spec.policy.deadline_s)
            dist.init_process_group(
                "gloo" if spec.device == "cpu" else "nccl",
                store=_meeting_point(master_addr, master_port, self.rank, self.world_size, timeout),
                rank=self.rank,
                world_size=self.world_size,
                timeout=timeout,
            )
        return device

    def _initialize(self, *, trains: bool) -> Any:  # noqa: ANN401 - deepspeed is not typed
        """Partition the initial model over the ranks, with or without an optimizer."""
        spec = self.spec
        config = _ds_config(spec, self.world_size)
        model = _load_partitioned(spec, config)
        config = _persist_vectors(config, model)
        if not trains:
            config["zero_optimization"].pop("offload_optimizer")
            engine = deepspeed.initialize(model=model.requires_grad_(False), config=config)[0]
            engine.eval()
            return engine
        if spec.policy.gradient_checkpointing:
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
        kwargs: dict[str, Any] = {
            "lr": spec.policy.lr,
            "betas": (spec.policy.adam_beta1, spec.policy.adam_beta2),
            "weight_decay": spec.policy.weight_decay,
        }
        trained = [p for p in model.parameters() if p.requires_grad]
        if spec.policy.offload_optimizer:
            optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam(trained, **kwargs)
        else:
            optimizer = torch.optim.AdamW(trained, **kwargs)
        engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
        engine.train(spec.policy.gradient_checkpointing)  # the only thing that asks for this mode
        return engine

    def _plain_reader(
        self, plain_bytes: int, *, scores: bool
    ) -> Callable[[IntArray], FloatArray] | None:
        if sum(_num_bytes(w.base) for w in self._weights) > plain_bytes:
            return None
        head = self._engine.module.head.weight
        with deepspeed.zero.GatheredParameters([head]):  # a collective: before ranks part
            weight = head.detach().cpu().clone() if scores else None
        return plain_reader(self.spec, weight) if self.rank == 0 else None

    def _name_weights(self) -> list[Weight]:
        """Every weight; tied embeddings have the names of both."""
        model: PreTrainedModel = self._engine.module.model
        embeddings = model.get_input_embeddings()
        head = model.get_output_embeddings() if self.spec.head == "lm" else None
        tied = head is not None and head.weight is embeddings.weight
        # Not `lm_head` everywhere: GPT-NeoX calls it `embed_out`.
        heads = tuple(f"{name}.weight" for name, m in model.named_modules() if m is head and tied)
        return [
            replace(w, names=(*w.names, *heads)) if w.base is embeddings.weight else w
            for w in weights_of(model)
        ]

    def _buckets(self, max_bytes: int) -> list[list[Weight]]:
        """Split the weights, in order, into runs of at most `max_bytes` (or one weight)."""
        buckets: list[list[Weight]] = []
        size = 0
        for weight in self._weights:
            num_bytes = _num_bytes(weight.base)
            if not buckets or size + num_bytes > max_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append(weight)
            size += num_bytes
        return buckets

    def _tensors(self, mb: Microbatch) -> MicrobatchTensors:
        return MicrobatchTensors.from_microbatch(mb, self._device)

    def _reference_values(self, mb: MicrobatchTensors) -> Tensor | None:
        if not self.spec.with_reference:
            return None
        with torch.no_grad():
            if self._reference is not None:
                return self._reference(mb).values_M
            with without_adapters(self._engine.module.model):
                return self._engine(mb).values_M

    def _sum_over_ranks(self, sums: dict[str, Tensor]) -> dict[str, float]:
        names = sorted(sums)
        vector = torch.stack([sums[name].double() for name in names])
        dist.all_reduce(vector)
        return dict(zip(names, vector.tolist(), strict=True))

    def _agree(self, write: LockstepWrites, directory: Path) -> None:
        """Raise SaveError on every rank when the writes of any have failed."""
        by_rank: list[Any] = [None] * self.world_size
        dist.all_gather_object(by_rank, write.fault)
        faults = [f"{fault} (rank {rank})" for rank, fault in enumerate(by_rank) if fault]
        if faults:
            raise SaveError(f"{directory} cannot be written: {'; '.join(faults)}")

    def _raise_non_finite(self, what: str, suspected: set[int]) -> None:
        """Raise NonFiniteError with the samples that any rank suspects, on every rank."""
        by_rank: list[Any] = [None] * self.world_size
        dist.all_gather_object(by_rank, suspected)
        samples = sorted(set[int]().union(*by_rank))
        raise NonFiniteError(
            f"{what} is NaN or infinite in optimizer step {self._num_updates}; samples of the "
            f"minibatch with such numbers: {samples or 'none, so the backward pass overflowed'}. "
            "The weights are as before the step. Lower policy.lr, or look at these samples."
        )


def _num_bytes(parameter: nn.Parameter) -> int:
    return _full_shape(parameter).numel() * parameter.element_size()
