"""Heads of a trained model: log-probs of targets with entropies, or scores, at the labels' places.

Plain torch; which weight of a transformers model a head reads is found here too.

Axes: M labels, P positions of all rows, U places that labels read, H hidden size, V vocabulary,
K tokens that a label's token was sampled among.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from actors.engines.specs import TrainSpec
from conf.errors import UserError
from rl.loss import Outputs

_LM_HEAD = "lm_head.weight"
_CHUNK_LOGITS = 2**26  # logits held at once by the LM head: 256 MiB in float32


class _TargetLogprob(torch.autograd.Function):
    """log_softmax(hidden @ weight.T / temperature) at labels, and its entropy, in float32.

    The [U, V] logits never exist as a whole, neither here nor in the backward pass, which computes
    them again, chunk by chunk. The chunks are inside one function, and not calls of a module,
    because the number of places differs between ranks and ZeRO-3 gathers once per call. A place
    with several labels is multiplied once.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - what autograd passes
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        hidden_UH: Tensor,
        weight_VH: Tensor,
        row_M: Tensor,  # of `hidden_UH`, ascending
        target_M: Tensor,
        temperature: float,
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden_UH.dtype, torch.float32)
        logprob_M = hidden_UH.new_empty(len(row_M), dtype=dtype)
        log_sum_U = hidden_UH.new_empty(len(hidden_UH), dtype=dtype)
        entropy_U = torch.empty_like(log_sum_U)
        ctx.chunk_rows = chunk_logits // len(weight_VH)
        for rows, labels in _chunks(row_M, len(hidden_UH), ctx.chunk_rows):
            logits = (hidden_UH[rows] @ weight_VH.T).to(dtype).div_(temperature)
            log_sum_U[rows] = logits.logsumexp(dim=-1)
            logprobs = logits.sub_(log_sum_U[rows, None])
            logprob_M[labels] = logprobs[row_M[labels] - rows.start, target_M[labels]]
            entropy_U[rows] = -(logprobs.exp().mul_(logprobs)).sum(dim=-1)
        ctx.save_for_backward(hidden_UH, weight_VH, row_M, target_M, log_sum_U, entropy_U)
        ctx.set_materialize_grads(False)
        ctx.temperature = temperature
        return logprob_M, entropy_U

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # one gradient an output
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        grad_logprob_M: Tensor | None,
        grad_entropy_U: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden_UH, weight_VH, row_M, target_M, log_sum_U, entropy_U = ctx.saved_tensors
        if grad_logprob_M is None:
            grad_logprob_M = torch.zeros_like(target_M, dtype=log_sum_U.dtype)
        sum_U = torch.zeros_like(log_sum_U).index_add_(0, row_M, grad_logprob_M)
        grad_hidden_UH = torch.empty_like(hidden_UH)
        trains = ctx.needs_input_grad[1]  # not beside adapters
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=log_sum_U.dtype) if trains else None
        for rows, labels in _chunks(row_M, len(hidden_UH), ctx.chunk_rows):
            logits = (hidden_UH[rows] @ weight_VH.T).to(log_sum_U.dtype).div_(ctx.temperature)
            logprobs = logits.sub_(log_sum_U[rows, None])
            # d logprob / d logits = one_hot(target) - p; d entropy / d logits = -p (log p + H)
            scale = -sum_U[rows, None]
            if grad_entropy_U is not None:
                scale = scale - grad_entropy_U[rows, None] * (logprobs + entropy_U[rows, None])
            grad = logprobs.exp_().mul_(scale)
            where = (row_M[labels] - rows.start, target_M[labels])
            grad.index_put_(where, grad_logprob_M[labels], accumulate=True)
            grad = grad.div_(ctx.temperature).to(weight_VH.dtype)
            grad_hidden_UH[rows] = grad @ weight_VH
            if grad_weight_VH is not None:
                grad_weight_VH += grad.T @ hidden_UH[rows]
        return grad_hidden_UH, _as_weight(grad_weight_VH, weight_VH), None, None, None, None


def _chunks(row_M: Tensor, num_rows: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Rows whose logits are held at once, with the labels that read them."""
    size = max(1, size)
    starts = torch.arange(0, num_rows + size, size, device=row_M.device)
    bounds = torch.searchsorted(row_M, starts).tolist()
    for number, (first, last) in enumerate(pairwise(bounds)):
        yield slice(number * size, (number + 1) * size), slice(first, last)


class _SupportLogprob(torch.autograd.Function):
    """The same at labels whose tokens were sampled among few: normalised over these alone.

    Only the rows of the head that a label's support names are multiplied, chunk by chunk, in the
    backward pass once more.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - what autograd passes
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        hidden_MH: Tensor,
        weight_VH: Tensor,
        target_M: Tensor,
        support_MK: Tensor,  # -1 where a support is smaller
        temperature: float,
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden_MH.dtype, torch.float32)
        logprob_M = hidden_MH.new_empty(len(hidden_MH), dtype=dtype)
        entropy_M = torch.empty_like(logprob_M)
        ctx.chunk_labels = max(1, chunk_logits // (support_MK.shape[1] * hidden_MH.shape[1]))
        for start in range(0, len(hidden_MH), ctx.chunk_labels):
            at = slice(start, start + ctx.chunk_labels)
            support = support_MK[at]
            logprobs = _support_logprobs(hidden_MH[at], weight_VH, support, temperature)
            is_target = support == target_M[at, None]
            logprob_M[at] = logprobs.masked_fill(~is_target, 0).sum(dim=-1)
            entropy_M[at] = -(logprobs.exp() * logprobs.masked_fill(support < 0, 0)).sum(dim=-1)
        ctx.save_for_backward(hidden_MH, weight_VH, target_M, support_MK, entropy_M)
        ctx.set_materialize_grads(False)
        ctx.temperature = temperature
        return logprob_M, entropy_M

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # one gradient an output
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        grad_logprob_M: Tensor | None,
        grad_entropy_M: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden_MH, weight_VH, target_M, support_MK, entropy_M = ctx.saved_tensors
        grad_hidden_MH = torch.empty_like(hidden_MH)
        trains = ctx.needs_input_grad[1]
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=entropy_M.dtype) if trains else None
        for start in range(0, len(hidden_MH), ctx.chunk_labels):
            at = slice(start, start + ctx.chunk_labels)
            support, hidden = support_MK[at], hidden_MH[at]
            logprobs = _support_logprobs(hidden, weight_VH, support, ctx.temperature)
            p = logprobs.exp()
            grad = torch.zeros_like(p)
            if grad_logprob_M is not None:
                is_target = (support == target_M[at, None]).to(p.dtype)
                grad += grad_logprob_M[at, None] * (is_target - p)
            if grad_entropy_M is not None:
                distance = logprobs.masked_fill(support < 0, 0) + entropy_M[at, None]
                grad -= grad_entropy_M[at, None] * p * distance
            grad = grad.div_(ctx.temperature).to(weight_VH.dtype)
            used = support.clamp(min=0)
            grad_hidden_MH[at] = torch.einsum("mk,mkh->mh", grad, weight_VH[used])
            if grad_weight_VH is not None:
                shares = torch.einsum("mk,mh->mkh", grad, hidden).to(grad_weight_VH.dtype)
                grad_weight_VH.index_add_(0, used.flatten(), shares.flatten(0, 1))
        return grad_hidden_MH, _as_weight(grad_weight_VH, weight_VH), None, None, None, None


def _as_weight(grad_VH: Tensor | None, weight_VH: Tensor) -> Tensor | None:
    """A sum of gradients in the dtype of the weight that it is for; None of a frozen one."""
    return None if grad_VH is None else grad_VH.to(weight_VH.dtype)


def _support_logprobs(
    hidden_MH: Tensor, weight_VH: Tensor, support_MK: Tensor, temperature: float
) -> Tensor:
    """Log-probs of the tokens of each support; -inf where it is smaller."""
    dtype = torch.promote_types(hidden_MH.dtype, torch.float32)
    logits_MK = torch.einsum("mh,mkh->mk", hidden_MH, weight_VH[support_MK.clamp(min=0)]).to(dtype)
    return logits_MK.div_(temperature).masked_fill(support_MK < 0, -torch.inf).log_softmax(dim=-1)


class LogprobHead(nn.Module):
    """Log-probs of the targets, and entropies, at places of the hidden states."""

    def __init__(
        self, weight_VH: nn.Parameter, temperature: float, chunk_logits: int = _CHUNK_LOGITS
    ) -> None:
        super().__init__()
        self.weight = weight_VH  # owned, not borrowed: ZeRO-3 gathers what a module owns
        self.temperature = temperature
        self._chunk_logits = chunk_logits  # held at once

    def forward(
        self,
        hidden_PH: Tensor,
        place_M: Tensor,
        target_ids_M: Tensor,
        support_MK: Tensor | None = None,
    ) -> Outputs:
        """Read the labels at `place_M`, ascending, of all positions P of the rows.

        Probabilities are those among `support_MK`, the tokens that each was sampled among, which
        holds the target; None is all tokens.
        """
        if support_MK is not None:
            logprob_M, entropy_M = _SupportLogprob.apply(
                hidden_PH[place_M],
                self.weight,
                target_ids_M,
                support_MK,
                self.temperature,
                self._chunk_logits,
            )
            return Outputs(logprob_M, entropy_M)
        place_U, row_M = place_M.unique_consecutive(return_inverse=True)
        logprob_M, entropy_U = _TargetLogprob.apply(
            hidden_PH[place_U],
            self.weight,
            row_M,
            target_ids_M,
            self.temperature,
            self._chunk_logits,
        )
        return Outputs(logprob_M, entropy_U[row_M])


class ScoreHead(nn.Module):
    """Scores: what a reward model would say if the text ended at that place."""

    def __init__(self, weight_1H: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight_1H

    def forward(
        self,
        hidden_PH: Tensor,
        place_M: Tensor,
        target_ids_M: Tensor,
        support_MK: Tensor | None = None,
    ) -> Outputs:
        """Read the labels at `place_M` of all positions P of the rows; they have no targets."""
        dtype = torch.promote_types(hidden_PH.dtype, torch.float32)
        scores_M = nn.functional.linear(hidden_PH[place_M].to(dtype), self.weight.to(dtype))[:, 0]
        return Outputs(scores_M, torch.zeros_like(scores_M))


def lm_weight(model: PreTrainedModel) -> nn.Parameter:
    """The LM head, if it is linear; what comes after it shows in `actors.engines.forward_check`."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or isinstance(head.bias, Tensor):
        raise UserError(
            f"model.path: {type(model).__name__} has an LM head with a bias or a layer of its own; "
            "log-probs are computed from a plain linear head. Use an architecture with one (Qwen, "
            "Llama, ...)."
        )
    return cast(nn.Parameter, head.weight)


def lm_weight_beside_scores(model: PreTrainedModel, spec: TrainSpec) -> nn.Parameter:
    """The LM head of the checkpoint that a sequence classifier was loaded from."""
    if model.config.tie_word_embeddings:
        return cast(nn.Parameter, model.get_input_embeddings().weight)
    directory = Path(spec.model_path)
    if not directory.is_dir():  # a hub id, whose files were fetched when the model was loaded
        directory = Path(snapshot_download(spec.model_path, local_files_only=True))
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if _LM_HEAD in tensors.keys():  # noqa: SIM118 - no mapping
                weight = tensors.get_tensor(_LM_HEAD).to(getattr(torch, spec.dtype))
                return nn.Parameter(weight)
    raise UserError(
        f"model: {spec.model_path} holds no {_LM_HEAD}, which lm_coef > 0 needs; start from a "
        "causal language model, or set lm_coef=0"
    )


def score_weight(model: PreTrainedModel) -> nn.Parameter:
    """The score head of a sequence classifier, if it is linear."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or isinstance(head.bias, Tensor):
        raise UserError(
            f"model: {type(model).__name__} has no linear `score` head without bias; "
            "use an architecture whose sequence classifier has one (Qwen, Llama, ...)."
        )
    return cast(nn.Parameter, head.weight)
