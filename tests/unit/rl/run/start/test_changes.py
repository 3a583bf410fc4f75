"""A resumed run may change what its earlier steps do not depend on."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.keys import keys_of
from conf.schema import Config
from conf.validate import to_dict
from rl.run.start.changes import FIXED, FREE, changes, check_changes
from tests.settings import run_config, shipped_config

pytestmark = pytest.mark.unit


def stored(*overrides: str) -> dict[str, Any]:
    return json.loads(json.dumps(to_dict(shipped_config(overrides))))


def config_file(directory: Path, *overrides: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(json.dumps(stored(*overrides)))
    return path


def test_the_same_command_changes_nothing_wherever_its_tree_lies() -> None:
    assert changes(stored(), shipped_config(["resume=auto", "output_dir=/else"])) == []
    before = stored()
    before["model"]["path"] = "/tmp/ray/copy/assets/minipy/policy"
    assert changes(before, shipped_config()) == []
    sft = ["experiment=recipe_sft"]
    before = stored(*sft)
    before["recipe_args"]["data"] = "/tmp/ray/copy/assets/minipy/examples/answers.jsonl"
    assert changes(before, shipped_config(sft)) == []
    assert changes(stored("model.path=models/a"), run_config(["model.path=./models/a"])) == []


@pytest.mark.parametrize("key", ["rank=4", "alpha=8", "layers=[q_proj]"])
def test_a_run_of_adapters_goes_on_with_the_same_ones(tmp_path: Path, key: str) -> None:
    lora = ["policy.lora.rank=8"]
    config = config_file(tmp_path, *lora)
    assert check_changes(config, shipped_config(lora)) == []
    with pytest.raises(UserError, match=f"policy.lora.{key.partition('=')[0]}: the steps so far"):
        check_changes(config, shipped_config([*lora, f"policy.lora.{key}"]))


def test_a_key_that_is_new_since_counts_with_its_default() -> None:
    before = stored()
    del before["report"], before["policy"]["grad_clip"]
    assert changes(before, shipped_config()) == []
    now = shipped_config(["policy.grad_clip=2"])
    assert [str(change) for change in changes(before, now)] == ["policy.grad_clip 1 -> 2"]


@pytest.mark.parametrize(
    "override",
    [
        *("algorithm.num_steps=90", "checkpoint.every=5", "rollout.deadline_s=9", "report.every=0"),
        *("trackers=[tensorboard]", "placement.ready_timeout_s=9", "policy.row_tokens=64"),
        *("evaluation.every=5", "alarm.action=stop", "self_check.action=off", "sandbox.level=2"),
        *("policy.ranks=4", "rollout.engines=2", "reward.shards=2"),
    ],
)
def test_what_no_earlier_step_depends_on_is_listed(tmp_path: Path, override: str) -> None:
    (change,) = check_changes(config_file(tmp_path), shipped_config(["resume=auto", override]))
    assert override.partition("=")[0] == change.path and " -> " in str(change)


@pytest.mark.parametrize(
    "override",
    [
        *("seed=7", "data.num_train=99", "model.path=models/other", "algorithm.group_size=4"),
        *("policy.lr=0.001", "policy.weight_decay=0.1", "rollout.top_p=0.9", "reward.shaping=raw"),
        *("recipe=cure", "evaluation.num_samples=2", "probe.num_prompts=32", "loop.rm_lr=1"),
    ],
)
def test_what_earlier_steps_depend_on_is_refused_unless_it_is_allowed(
    tmp_path: Path, override: str
) -> None:
    path, value = override.split("=")
    config = config_file(tmp_path)
    with pytest.raises(UserError, match=rf"^{path}: the steps so far were made with .*{value}"):
        check_changes(config, shipped_config(["resume=auto", override]))
    section = path.split(".")[0]
    for allowed in (path, f"{section}*"):
        given = ["resume=auto", override, f"resume_allow=[{allowed}]"]
        assert [c.path for c in check_changes(config, shipped_config(given))] == [path]


def test_another_file_of_examples_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    config = config_file(tmp_path, "experiment=recipe_sft")
    other = ["experiment=recipe_sft", "resume=auto", "++recipe_args.data=own.jsonl"]
    with pytest.raises(UserError, match=r"^recipe_args: the steps so far were made with "):
        check_changes(config, shipped_config(other))
    assert len(check_changes(config, shipped_config([*other, "resume_allow=[recipe_args]"]))) == 1


def test_all_refusals_are_named_at_once(tmp_path: Path) -> None:
    given = ["resume=auto", "seed=7", "policy.ranks=1", "policy.lr=1"]
    config = config_file(tmp_path)
    with pytest.raises(UserError) as caught:
        check_changes(config, shipped_config(given))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed", "policy.lr"]
    found = check_changes(config, shipped_config([*given, "resume_allow=['*']"]))
    assert [change.path for change in found] == ["seed", "policy.ranks", "policy.lr"]


@pytest.mark.parametrize("content", [None, "seed: 0", "[]"])
def test_without_a_record_nothing_is_known(tmp_path: Path, content: str | None) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        check_changes(config, shipped_config(["resume=auto"]))
    assert check_changes(config, shipped_config(["resume=auto", "resume_allow=['*']"])) == []


def test_every_pattern_is_of_a_key() -> None:
    paths = [key.path for key in keys_of(Config)]
    for pattern in (*FIXED, *FREE):
        assert any(fnmatchcase(path, pattern) for path in paths), pattern
