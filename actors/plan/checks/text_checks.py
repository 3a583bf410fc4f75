"""Text checks before a start: tokenizers, chat templates and labels of a run's models.

Each command calls one of these. They load tokenizers, and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.errors import UserError
from conf.schema import ModelConfig, RewardConfig
from reward.model.files import RewardKeys
from reward.model.golden import find_golden_scores, read_golden_scores
from reward.model.labels import check_one_label
from reward.model.text_path import TextPath
from rl.base.console import Console
from rl.text.chat_template import check_policy_text, check_roles, date_note
from rl.text.hub_files import model_config
from rl.text.tokenizer import tokenizer_note
from rl.types import Prompt

_OF_A_RUN = RewardKeys()


def check_policy_texts(
    model: ModelConfig,
    prompts: Mapping[str, Sequence[Prompt]],
    key: str = "model.path",
    template: str = "model.chat_template",
) -> Any:  # noqa: ANN401 - tokenizers have no common typed base
    """The tokenizer of a policy that can be asked all `prompts` (by the key that names them).

    `key` and `template` are what a command calls the model and its template.

    Raises:
        UserError: for a tokenizer that loses text or does not fit the model, for a template that
            is missing or hides the user's text, and naming the problems whose turns it refuses.
    """
    tokenizer = check_policy_text(model.path, model.chat_template, key, template)
    for where, some in prompts.items():
        check_roles(tokenizer, some, where, model.path)
    _say(tokenizer_note(model.path, key), date_note(tokenizer, key, model.path))
    return tokenizer


def check_reward_texts(reward: RewardConfig, keys: RewardKeys = _OF_A_RUN) -> TextPath:
    """The text path of a reward model that reads what its chat template says.

    Raises:
        UserError: for a tokenizer that loses text or does not fit the model, for a template that
            is missing, hides problem or code, or writes the date, for more than one label, and for
            a file of golden scores that is none.
    """
    model, key = str(reward.model), keys.model
    check_one_label(model_config(model), model, key)
    text_path = TextPath.load(
        model, reward.adapter, reward.max_tokens, system=reward.system, key=key
    )
    golden = find_golden_scores(model, reward.golden_scores, keys.golden_scores)
    if golden is not None:
        _check_length(golden, text_path, reward.max_tokens, keys.max_tokens)
    unchecked = (
        f"{key}: {model} comes without golden scores, so its engine is not compared with plain "
        f"transformers; give {keys.golden_scores}=FILE"
    )
    _say(tokenizer_note(model, key), None if golden else unchecked)
    return text_path


def _check_length(golden: Path, text_path: TextPath, max_tokens: int, key: str) -> None:
    """Refuse a context that cuts programs with golden scores: an engine would score less."""
    rows = read_golden_scores(golden)
    cut = sum(text_path.encode(row.question, row.code).truncated for row in rows)
    if cut:
        raise UserError(
            f"{key}: {max_tokens} tokens cut {cut} of the {len(rows)} programs that {golden} has "
            f"scores of, so that an engine cannot agree with them (raise {key})"
        )


def _say(*notes: str | None) -> None:
    console = Console()
    for note in notes:
        if note is not None:
            console.say(note)
