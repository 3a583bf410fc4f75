"""LM head of a causal language model in safetensors: where it lies, and rows of it as a score.

Whether a logit is a linear map of the last hidden state is tried, not looked up: models scale,
bend or transform what their head says (Gemma-2, Granite, Cohere), each under names of its own.

Axes: T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from actors.engines.stored.classifier import HEAD
from conf.errors import UserError
from reward.model.loading import first_line
from reward.model.safetensors_files import check_weights

_NUM_LOGITS, _NUM_TOKENS = 8, 4
_SPREAD = 30.0  # of the hidden states that are tried: logits far enough from 0 to be bent
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class LmHead:
    """Where the head of a model lies."""

    name: str  # of the module
    weights: tuple[str, ...]  # tensors that hold it: with tied embeddings another, or both
    bias: str | None

    def name_of(self, stored: str) -> str | None:
        """What a classifier calls a tensor of the model; None for those of the head alone."""
        return None if stored.startswith(f"{self.name}.") else stored


def find_lm_head(source: Path) -> LmHead:
    """The head of a model, of which no weight is read.

    Raises:
        UserError: where a logit is not a row of it times the hidden state.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise _refusal(source, f"{type(model).__name__} has no linear LM head")
    name = next(name for name, module in model.named_modules() if module is head)
    named = dict(model.named_parameters(remove_duplicate=False))
    stored = check_weights(source)
    weights = tuple(n for n, one in named.items() if one is head.weight and n in stored)
    if not weights:
        raise _refusal(source, f"its files hold no {name}.weight")
    _check_linear(source, model, head)
    has_bias = isinstance(head.bias, Tensor)
    return LmHead(name=name, weights=weights, bias=f"{name}.bias" if has_bias else None)


def difference_head(source: Path, head: LmHead, yes_id: int, no_id: int) -> dict[str, Tensor]:
    """The head of a classifier whose score is the logit of one token less that of another.

    It is in float32, whatever the weights are in: a difference of two numbers of 8 bits has more.

    Raises:
        UserError: where the files hold two heads that differ.
    """
    found = [_read(source, name, (yes_id, no_id)) for name in head.weights]
    if any(not torch.equal(one, found[0]) for one in found):
        raise UserError(
            f"input: {source} ties its LM head to the embedding (tie_word_embeddings), and its "
            f"files hold {' and '.join(head.weights)} with other numbers; correct config.json"
        )
    tensors = {f"{HEAD}.weight": _difference(found[0])[None]}
    if head.bias is not None:
        tensors[f"{HEAD}.bias"] = _difference(_read(source, head.bias, (yes_id, no_id)))[None]
    return tensors


def _difference(rows: Tensor) -> Tensor:
    return (rows[0] - rows[1]).float()


def _read(source: Path, name: str, rows: Sequence[int]) -> Tensor:
    """Rows of a tensor in float64."""
    for file in sorted(source.glob("*.safetensors")):
        opened: Any = safe_open(file, framework="pt")
        with opened as tensors:
            if name in tensors.keys():  # noqa: SIM118 - no mapping
                entry = tensors.get_slice(name)
                return torch.cat([entry[row : row + 1] for row in rows]).double()
    raise _refusal(source, f"its files hold no {name}")


class _KnownOutput(BaseModelOutputWithPast):
    """Hidden states, and nothing of whatever else a model passes on."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _KnownBody(nn.Module):
    """What stands for all layers of a model: hidden states that are known."""

    def __init__(self, hidden_1TH: Tensor) -> None:
        super().__init__()
        self._output = _KnownOutput(last_hidden_state=cast("torch.FloatTensor", hidden_1TH))

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPast:
        return self._output


def _check_linear(source: Path, model: Any, head: nn.Linear) -> None:  # noqa: ANN401 - a model of transformers
    """Refuse a model that does more with known hidden states than its head would; it is spent."""
    hidden_1TH = _SPREAD * torch.randn(1, _NUM_TOKENS, head.in_features)
    known = nn.Linear(head.in_features, _NUM_LOGITS, bias=isinstance(head.bias, Tensor))
    setattr(model, model.base_model_prefix, _KnownBody(hidden_1TH))
    model.set_output_embeddings(known)
    with torch.no_grad():
        wanted = known(hidden_1TH)
        try:
            ids = torch.zeros(1, _NUM_TOKENS, dtype=torch.long)
            found = model.eval()(input_ids=ids, use_cache=False).logits
        except Exception as error:
            raise _refusal(
                source,
                f"whether {type(model).__name__} has a linear head cannot be told "
                f"({first_line(error)})",
            ) from error
    if found.shape != wanted.shape or float((found - wanted).abs().max()) > _TOLERANCE:
        raise _refusal(
            source,
            f"{type(model).__name__} does more to a logit than a linear map of the hidden state "
            "(it is scaled or bent), which the head of a classifier cannot",
        )


def _refusal(source: Path, reason: str) -> UserError:
    return UserError(
        f"input: {source} cannot be converted: {reason}; give a model of another family (Qwen, "
        "Llama, ...), or let a server ask it (docs/served_judges.md)"
    )
