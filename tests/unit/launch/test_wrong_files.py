"""Keys that name a file, given what is none: refused in words through `launch/train.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.launch.commands import Training

pytestmark = pytest.mark.unit

LONG = "x" * 300  # more than a file system gives a name
# What makes the key count, for those that do not always.
KEYS: dict[str, tuple[str, ...]] = {
    "model.path": (),
    "model.chat_template": (),
    "reward.model": (),
    "reward.system": (),
    "reward.golden_scores": (),
    "data.train_path": ("data=parquet", "data.eval_path=/nowhere"),
    "data.eval_path": ("data=parquet", "data.train_path=/nowhere"),
    "data.untested_path": ("reward=hybrid",),
    "probe.path": ("data=parquet", "data.eval_path=/nowhere", "data.train_path=/nowhere"),
    "recipe_args.data": ("recipe=sft",),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["/no/such/file", f"/{LONG}", f"/bin/{LONG}/x"])
def test_a_file_that_is_not_there_is_named_with_its_key(training: Training, key: str, value: str):
    text = training.refusal("dry_run=true", *KEYS[key], f"++{key}={value}")
    (line,) = [line for line in text.splitlines() if line.startswith(f"error: {key}: ")]
    assert value in line and "give " in line


@pytest.mark.parametrize("key", ["reward.system", "model.chat_template", "reward.golden_scores"])
def test_a_file_that_is_no_text_is_named_with_its_key(tmp_path: Path, training: Training, key: str):
    (tmp_path / "binary").write_bytes(b"\x7fELF\xff\xfe\xd0{")
    text = training.refusal("dry_run=true", f"++{key}={tmp_path / 'binary'}")
    assert f"{tmp_path / 'binary'}" in text and "UTF-8" in text
