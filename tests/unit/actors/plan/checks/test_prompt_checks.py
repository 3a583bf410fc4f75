"""Every prompt of every split is encoded before a run, and the rows that do not fit are named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from actors.plan.checks.inputs import check_inputs
from actors.plan.checks.prompt_checks import Asking, Split, check_splits
from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.types import Message, Prompt
from tests.settings import run_config, shipped_config

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[5] / "assets/minipy/policy"


def asked(prompt: Prompt, *turns: tuple[str, str]) -> Prompt:
    return replace(prompt, messages=tuple(Message(role, text) for role, text in turns))  # pyright: ignore[reportArgumentType]  # roles


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, list[Prompt]]:
    """Problems that fit, for the files of a run."""
    return {"train": make_prompts("train", 8, 0), "eval": make_prompts("eval", 4, 0)}


def refusal(splits: dict[str, list[Prompt]], tmp_path: Path, *overrides: str) -> list[str]:
    for name, prompts in splits.items():
        write_prompts(tmp_path / f"{name}.parquet", prompts)
    paths = [f"++data.{name}_path={tmp_path / name}.parquet" for name in splits]
    cfg = run_config(
        ["data=parquet", "++algorithm.prompts_per_step=4", "++probe.every=0", *paths, *overrides]
    )
    with pytest.raises(UserError) as caught:
        check_inputs(with_shipped_models(cfg))
    return str(caught.value).splitlines()


def test_long_rows_of_all_splits_are_named_at_once(
    splits: dict[str, list[Prompt]], tmp_path: Path
) -> None:
    long = ("user", "word " * 400)
    for name, rows in (("train", (2, 5)), ("eval", (3,))):
        for row in rows:
            splits[name][row] = asked(splits[name][row], long)
    train, held_out = refusal(splits, tmp_path)
    assert train.startswith("data.train_path: 2 of 8 prompts have more than 128 tokens")
    assert "train.parquet:2 (" in train and "train.parquet:5 (" in train
    assert "raise model.max_prompt_tokens" in train
    assert held_out.startswith("data.eval_path: 1 of 4 prompts")
    assert "eval.parquet:3 (" in held_out


def test_a_row_keeps_its_number_when_bad_rows_before_it_are_skipped(
    splits: dict[str, list[Prompt]], tmp_path: Path
) -> None:
    splits["train"][0] = replace(splits["train"][0], messages=())
    splits["train"][6] = asked(splits["train"][6], ("user", "word " * 400))
    (line,) = refusal(splits, tmp_path, "++data.max_bad_rows=1")
    assert "1 of 7 prompts" in line and "train.parquet:6 (" in line


def test_a_template_that_takes_no_system_turn_names_the_rows(
    splits: dict[str, list[Prompt]], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(POLICY, model)
    template = model / "chat_template.jinja"
    refuses = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    )
    template.write_text(refuses + template.read_text())
    for row in (4, 6):
        splits["train"][row] = asked(splits["train"][row], ("system", "Short."), ("user", "Add."))
    (line,) = refusal(splits, tmp_path, f"++model.path={model}")
    assert "2 of 8 prompts are refused by the chat template" in line
    assert "turns system, user: TemplateError: no system turn" in line
    assert "train.parquet:4, train.parquet:6;" in line


def test_generated_problems_are_named_by_their_ids(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data \(minipy\): 4000 of 4000 .* minipy-train-0-0 \("):
        check_inputs(shipped_config(["++model.max_prompt_tokens=20"]))


def test_a_tokenizer_above_the_embedding_asks_no_prompt(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(POLICY, model)
    config = model / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 512', '"vocab_size": 2'))
    asking = Asking(model=str(model), chat_template=None, max_prompt_tokens=128)
    split = Split(key="data.train_path", prompts=make_prompts("train", 2, 0))
    with pytest.raises(UserError, match="491 tokens that the model has no embedding for"):
        check_splits(asking, [split])
