"""Trained model: a transformers model with a head that gives one number per position.

Plain torch and transformers: `actors.engines.deepspeed_engine` partitions what is made here.

Axes: R rows, L tokens of a row, M labels, P positions of all rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from actors.engines.heads import (
    LogprobHead,
    ScoreHead,
    lm_weight,
    lm_weight_beside_scores,
    score_weight,
)
from actors.engines.specs import TrainSpec
from actors.engines.stored.saved_model import (
    copy_generation,
    copy_tokenizer,
    one_label,
    same_kind,
    small_files,
    write_config,
)
from conf.errors import UserError, in_one_line
from conf.schema import Attention, PolicyConfig
from reward.model.loading import LoadingReport, check_report, is_causal
from rl.base.scratch import Scratch
from rl.loss import MicrobatchTensors, Outputs
from rl.text.tokenizer import read_tokenizer
from rl.types import FloatArray, IntArray

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_KINDS_OF_ROWS = 64  # that FlexAttention may be compiled for


def lr_at(step: int, policy: PolicyConfig, total_steps: int) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up, then constant or cosine.

    >>> policy = PolicyConfig(lr=1e-3, warmup_steps=2, microbatch_tokens=64)
    >>> [lr_at(step, policy, total_steps=10) for step in range(3)]
    [0.0005, 0.001, 0.001]
    """
    if step < policy.warmup_steps:
        return policy.lr * (step + 1) / policy.warmup_steps
    if policy.lr_schedule == "constant":
        return policy.lr
    length = max(1, total_steps - policy.warmup_steps)
    progress = min(1.0, (step - policy.warmup_steps) / length)
    return policy.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


class TrainModel(nn.Module):
    """A transformers model whose forward returns what the loss reads of each label."""

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__()
        self.model = model
        if spec.head == "lm":
            self.head = LogprobHead(lm_weight(model), spec.temperature)
        else:
            self.head = ScoreHead(score_weight(model))
        # Beside the score head and not in `model`: a reward model is saved without it.
        self.lm_head = (
            LogprobHead(lm_weight_beside_scores(model, spec), 1.0)
            if spec.head == "score_lm"
            else None
        )

    def forward(self, mb: MicrobatchTensors, *, own: bool = False) -> Outputs:
        """Log-probs of the targets with the entropy of their places, or scores.

        With `own` they come from the model's own head, as anybody calls it: token ids alone, rows
        without padding. What training computes is compared with that
        (`actors.engines.forward_check`).
        """
        if own:
            return self._own_outputs(mb)
        # Without a mask, transformers isolates the samples of a row where `position_ids` restart.
        hidden_RLH = self.model.base_model(
            input_ids=mb.token_ids_RL,
            position_ids=mb.position_ids_RL,
            attention_mask=None if mb.subtree_end_RL is None else self._mask(mb.subtree_end_RL),
            use_cache=False,
        ).last_hidden_state
        hidden_PH = hidden_RLH.flatten(0, 1)
        outputs: Outputs = self.head(hidden_PH, mb.place_M, mb.target_ids_M, mb.support_MK)
        if self.lm_head is None:
            return outputs
        logprobs: Outputs = self.lm_head(hidden_PH, mb.place_M, mb.target_ids_M, mb.support_MK)
        return Outputs(
            torch.where(mb.is_token_M, logprobs.values_M, outputs.values_M),
            torch.where(mb.is_token_M, logprobs.entropy_M, outputs.entropy_M),
        )

    def _mask(self, subtree_end_RL: Tensor) -> Tensor | BlockMask:
        """Which token sees which (`rl.prefix_tree`), as the attention kernel takes it."""
        if self.model.config._attn_implementation == "flex_attention":
            return block_mask(subtree_end_RL)
        return additive_mask(subtree_end_RL, self.model.dtype)

    def _own_outputs(self, mb: MicrobatchTensors) -> Outputs:
        logits = self.model(input_ids=mb.token_ids_RL, use_cache=False).logits.float()
        zeros_M = torch.zeros(mb.place_M.shape, device=logits.device)
        row_M = mb.place_M // mb.token_ids_RL.shape[1]
        if isinstance(self.head, ScoreHead):  # one score a row, which stands at its last token
            return Outputs(logits[row_M, 0], zeros_M)
        logprobs_PV = (logits / self.head.temperature).log_softmax(dim=-1).flatten(0, 1)
        return Outputs(logprobs_PV[mb.place_M, mb.target_ids_M], zeros_M)


def additive_mask(subtree_end_RL: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention kernels add to their scores, [R, 1, L, L]: 0 where a token is seen."""
    columns_L = torch.arange(subtree_end_RL.shape[1], device=subtree_end_RL.device)
    behind_LL = columns_L[:, None] >= columns_L[None, :]
    seen_RLL = behind_LL & (columns_L[:, None] < subtree_end_RL[:, None, :])
    zeros_RLL = torch.zeros(seen_RLL.shape, dtype=dtype, device=subtree_end_RL.device)
    return zeros_RLL.masked_fill_(~seen_RLL, torch.finfo(dtype).min)[:, None]


def block_mask(subtree_end_RL: Tensor) -> BlockMask:
    """The same for FlexAttention, which skips blocks that nobody sees."""

    from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415 - seconds

    def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end_RL[row, key])

    num_rows, length = subtree_end_RL.shape
    return create_block_mask(sees, num_rows, None, length, length, subtree_end_RL.device)


def _allow_recompiling(attention: Attention) -> None:
    """Let FlexAttention be compiled for every kind of row.

    Rows of one token, of few and of many, one and several, with a gradient and without: after eight
    kinds torch gives up by default, and computes whole matrices of scores.
    """
    if attention == "flex_attention":
        import torch._dynamo  # noqa: PLC0415 - seconds

        torch._dynamo.config.recompile_limit = _KINDS_OF_ROWS


def suspects(outputs: Outputs, mb: MicrobatchTensors) -> set[int]:
    """Samples with a NaN or infinity in what the model says, or in what it is trained on."""
    finite_M = outputs.values_M.isfinite() & mb.advantages_M.isfinite()
    finite_M &= mb.rollout_logprobs_M.isfinite()
    return set(mb.sample_index_M[~finite_M].tolist())


def load_model(spec: TrainSpec) -> TrainModel:
    """Load safetensors without dropout."""
    config = _load_config(spec)
    for name in config.to_dict():
        if "dropout" in name or name.endswith("_pdrop"):
            setattr(config, name, 0.0)
    _allow_recompiling(spec.policy.attention)
    torch.manual_seed(spec.seed)
    of_lm = is_causal(config.architectures or ())
    model, info = _factory(spec).from_pretrained(
        spec.model_path,
        config=config,
        dtype=getattr(torch, spec.dtype),
        attn_implementation=spec.policy.attention,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are refused by name
        output_loading_info=True,
    )
    head = "lm" if spec.head == "lm" else "score"
    check_report(spec.model_path, head, LoadingReport.of(info), new_head=of_lm)
    return TrainModel(model, spec)


def _factory(spec: TrainSpec) -> Any:  # noqa: ANN401 - an auto class of transformers
    return AutoModelForCausalLM if spec.head == "lm" else AutoModelForSequenceClassification


def save_config_and_tokenizer(model: PreTrainedModel, spec: TrainSpec, directory: Path) -> None:
    """Write all of a Hugging Face directory but the weights."""
    source = small_files(spec.model_path)
    directory.mkdir(parents=True, exist_ok=True)
    config = _load_config(spec)
    tokenizer: Any
    tokenizer, note = read_tokenizer(spec.model_path, "model.path")
    changes: dict[str, Any] = {} if spec.head == "lm" else one_label()
    if spec.pad_token_id is not None:
        changes["pad_token_id"] = spec.pad_token_id
    elif config.pad_token_id is None:  # a sequence classifier finds the last token with it
        changes["pad_token_id"] = (
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
    architecture = type(model).__name__
    if same_kind(source, model.config.model_type):
        write_config(source, directory, architecture, spec.dtype, changes)
    else:  # the language model inside a larger one, which is what is trained and saved
        config = copy.deepcopy(model.config)
        config.update({**changes, "architectures": [architecture], "dtype": spec.dtype})
        config.save_pretrained(directory)
    if note is None and spec.chat_template is None and spec.pad_token_id is None:
        copy_tokenizer(source, directory)
    else:  # what was trained with is not what the files say
        if spec.chat_template is not None:
            tokenizer.chat_template = spec.chat_template
        if spec.pad_token_id is not None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(spec.pad_token_id)
        tokenizer.save_pretrained(directory)
    if model.can_generate():
        copy_generation(source, directory)


def rehearse_saving(model: PreTrainedModel, spec: TrainSpec) -> None:
    """Write what `save_config_and_tokenizer` will write at the end, and read it back.

    Raises:
        UserError: when it cannot be written or read; a run would lose its model.
    """
    with Scratch("rehearsal") as scratch:
        directory = scratch.path
        try:
            save_config_and_tokenizer(model, spec, directory)
            AutoConfig.from_pretrained(directory)
        except Exception as error:  # of any library that reads or writes these files
            raise UserError(
                f"{spec.model_path}: what is written beside the trained weights cannot be saved "
                f"({in_one_line(error)}); correct the files of the model"
            ) from error


def _load_config(spec: TrainSpec) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(spec.model_path)
    if spec.head != "lm":
        config.num_labels = 1
    return config


def restore_buffers(model: PreTrainedModel, spec: TrainSpec) -> None:
    """Give every buffer that no checkpoint holds the value and dtype of plain loading.

    `zero.Init` rounds each new floating-point tensor to the dtype of the parameters. Rotary
    frequencies in bfloat16 turn position 500 by another 0.1 rad, and the policy is no longer the
    one that samples. So the model is made once more, outside of it and without parameters.
    """
    with _parameters_on_meta():
        plain: nn.Module = _factory(spec).from_config(
            model.config,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=spec.policy.attention,
        )
    modules = dict(model.named_modules())
    for path, module in plain.named_modules():
        for name in module._non_persistent_buffers_set & module._buffers.keys():
            wanted, here = module._buffers[name], modules[path]
            held = here._buffers.get(name)
            if wanted is None or held is None or wanted.is_meta or not held.is_floating_point():
                continue
            if held.dtype != wanted.dtype or not torch.equal(held.cpu(), wanted):
                here.register_buffer(name, wanted.to(held.device), persistent=False)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Give each parameter no memory as soon as a module takes it; buffers stay as they are."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def plain_reader(spec: TrainSpec, score_weight: Tensor | None) -> Callable[[IntArray], FloatArray]:
    """Read samples as plain transformers does, on the CPU: log-probs [T - 1], or the score [1].

    `score_weight` takes the place of a score head, which a language model has not got.
    """
    model = _factory(spec).from_pretrained(
        spec.model_path,
        config=_load_config(spec),
        dtype=getattr(torch, spec.dtype),
        use_safetensors=True,
    )
    model.eval()
    if score_weight is not None:
        model.score.weight.data.copy_(score_weight)

    def read(token_ids: IntArray) -> FloatArray:
        ids = torch.from_numpy(token_ids.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0].float()
        if spec.head != "lm":
            return logits[:1].numpy()
        logprobs = (logits[:-1] / spec.temperature).log_softmax(dim=-1)
        return logprobs.gather(-1, ids[1:, None]).squeeze(-1).numpy()

    return read
