"""The reference of the configuration is complete, and written anew when something changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.groups import about_choice, choices, keys_set_by
from conf.keys import keys_of
from conf.reference import reference_markdown
from conf.relations import CAUTIONS, RELATIONS
from conf.schema import Config

pytestmark = pytest.mark.unit

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference.md"
FILES = [file for files in choices().values() for file in files.values()]


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text() == reference_markdown(), "run `make docs`"


def test_every_key_choice_and_rule_has_a_line() -> None:
    lines = reference_markdown().splitlines()
    for key in keys_of(Config):
        assert any(line.startswith(f"| `{key.path}` | {key.rule} |") for line in lines)
    for group, files in choices().items():
        assert all(
            any(line.startswith(f"| `{group}={name}` |") for line in lines) for name in files
        )
    for relation in (*RELATIONS, *CAUTIONS):
        assert f"- `{relation.path}`: {relation.rule}." in lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_file_of_a_group_says_what_it_is_in_one_short_sentence(file: Path) -> None:
    assert 10 <= len(about_choice(file)) <= 180


def test_the_keys_of_an_experiment_are_those_of_its_file() -> None:
    keys = keys_set_by(choices()["experiment"]["rlvr_rollouts"])
    assert keys == {"reward.early_stop": False, "checkpoint.rollouts_every": 1}
