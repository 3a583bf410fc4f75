"""Prompt checks: every prompt of every split is encoded before an engine starts.

A prompt that is too long, or that the chat template refuses, would else end a run in the step that
draws it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from actors.groups.rollout import encode_prompt
from actors.plan.checks.text_checks import check_policy_texts
from conf.errors import UserError, in_one_line
from conf.rules.problems import problem_files
from conf.schema import DataConfig, ModelConfig, ProbeConfig
from rl.problems.levels import make_prompts
from rl.problems.prompts import load_prompts
from rl.run.probe import minipy_probe
from rl.text.chat_template import check_policy_text
from rl.types import Prompt

_MAX_NAMED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Problems that are asked, and where they come from."""

    key: str  # of the configuration, for messages
    prompts: Sequence[Prompt]
    file: str | None = None  # canonical parquet; None for problems that are generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How the policy is asked, and what the keys of it are called."""

    model: str
    chat_template: str | None
    max_prompt_tokens: int
    model_key: str = "model.path"
    template_key: str = "model.chat_template"
    limit_key: str = "model.max_prompt_tokens"


_checked: set[str] = set()


def check_prompts_of(
    model: ModelConfig,
    data: DataConfig,
    probe: ProbeConfig,
    seed: int,
    tokenizer: Any = None,  # noqa: ANN401 - tokenizers have no common typed base
) -> None:
    """Refuse the prompts of a run that its policy cannot be asked; once for all jobs of a sweep.

    `tokenizer` is that of the policy where it is loaded and checked already.

    Raises:
        UserError: see `check_splits`.
    """
    key = repr((model, data, probe, seed))
    if key in _checked:
        return
    asking = Asking(
        model=model.path,
        chat_template=model.chat_template,
        max_prompt_tokens=model.max_prompt_tokens,
    )
    check_splits(asking, _splits(data, probe, seed), tokenizer)
    _checked.add(key)


def _splits(data: DataConfig, probe: ProbeConfig, seed: int) -> Iterator[Split]:
    """All problems that a run may ask."""
    if data.kind == "minipy":
        train = make_prompts(data.level, "train", data.num_train, seed)
        held_out = make_prompts(data.level, "eval", data.num_eval, 0)
        yield Split(key="data (minipy)", prompts=train)
        yield Split(key="data (minipy)", prompts=held_out)
        if probe.every and probe.path is None:
            found = minipy_probe(data.level, probe.num_prompts, held_out)
            yield Split(key="probe (minipy)", prompts=found)
    files = problem_files(data)
    if probe.every and probe.path is not None:
        files["probe.path"] = probe.path
    for key, file in files.items():
        yield Split(key=key, prompts=load_prompts(file, data.max_bad_rows), file=file)


def check_prompts(
    model: ModelConfig,
    prompts_P: Sequence[Prompt],
    key: str = "model",
    template: str = "chat_template",
) -> None:
    """Refuse prompts that the policy cannot be asked, before an engine starts.

    `key` and `template` are what the command calls the model and its chat template.

    Raises:
        UserError: for a tokenizer or a template that does not say what it is given, naming the
            problems whose turns it refuses, or those that are too long.
    """
    check_policy_texts(model, {}, key, template)
    asking = Asking(
        model=model.path,
        chat_template=model.chat_template,
        max_prompt_tokens=model.max_prompt_tokens,
        model_key=key,
        template_key=template,
        limit_key="max_prompt_tokens",
    )
    check_splits(asking, [Split(key="max_prompt_tokens", prompts=prompts_P)])


def check_splits(
    asking: Asking,
    splits: Iterable[Split],
    tokenizer: Any = None,  # noqa: ANN401 - tokenizers have no common typed base
) -> None:
    """Refuse prompts that the policy cannot be asked.

    Raises:
        UserError: when there is no tokenizer or template, or naming the rows of all splits.
    """
    if tokenizer is None:
        tokenizer = check_policy_text(
            asking.model, asking.chat_template, asking.model_key, asking.template_key
        )
    faults: list[str] = []
    for split in splits:
        faults += _faults(tokenizer, asking, split)
    if faults:
        raise UserError("\n".join(faults))


def _faults(
    tokenizer: Any,  # noqa: ANN401 - tokenizers have no common typed base
    asking: Asking,
    split: Split,
) -> list[str]:
    """What is wrong with the prompts of one split, a line for each kind."""
    limit = asking.max_prompt_tokens
    long: dict[str, str] = {}  # id -> what is shown with it
    refused: dict[str, dict[str, str]] = defaultdict(dict)  # by reason
    longest = 0
    for prompt in split.prompts:
        try:
            ids = encode_prompt(tokenizer, prompt)
        except Exception as error:  # noqa: BLE001 - a template raises what it likes
            refused[_reason(prompt, error)][prompt.id] = ""
            continue
        longest = max(longest, len(ids))
        if not len(ids):
            refused["it makes no token of them"][prompt.id] = ""
        elif len(ids) > limit:
            long[prompt.id] = f" ({len(ids)})"
    rows = _rows(split) if long or refused else {}
    by_template = (
        "move the text of a turn that is refused into the user turn, give another "
        f"{asking.template_key}, or drop these rows"
    )
    found = [
        (f"are refused by the chat template of {asking.model} ({why})", ids, by_template)
        for why, ids in refused.items()
    ]
    found += [
        (
            f"have more than {limit} tokens ({asking.limit_key}; the longest has {longest})",
            long,
            f"raise {asking.limit_key}, or drop these rows",
        ),
    ]
    return [
        f"{split.key}: {len(which)} of {len(split.prompts)} prompts {what}: "
        f"{_named(which, split, rows)}; {fix}"
        for what, which, fix in found
        if which
    ]


def _reason(prompt: Prompt, error: Exception) -> str:
    """Why a problem is refused, without its id: rows that share a reason share a line."""
    roles = ", ".join(message.role for message in prompt.messages)
    return f"turns {roles}: {in_one_line(error.__cause__ or error)}"


def _rows(split: Split) -> Mapping[str, int]:
    """The row of each problem of a file."""
    if split.file is None:
        return {}
    column = pq.read_table(split.file, columns=["id"])["id"].to_pylist()
    return {name: row for row, name in reversed(list(enumerate(column)))}


def _named(found: Mapping[str, str], split: Split, rows: Mapping[str, int]) -> str:
    """The rows as `file:row`, or the problems by their ids where there is no file."""
    file = Path(split.file or "").name
    shown = [
        f"{f'{file}:{rows[name]}' if name in rows else name}{what}" for name, what in found.items()
    ]
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    return ", ".join(shown[:_MAX_NAMED]) + more
