"""Functions from outside the tree get arguments of their own, which are checked as keys are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.imports import load_function
from conf.validate import ConfigError, build_config, to_dict
from tests.settings import shipped_config

pytestmark = pytest.mark.unit

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping
from conf.schema import key

if TYPE_CHECKING:
    from somewhere import Elsewhere

@dataclass(frozen=True, kw_only=True)
class Args:
    share: float = key("a share", 0.5, ge=0, le=1)
    mode: str = key("a mode")

def typed(cfg: Elsewhere, sandbox: object, args: Args) -> object: return args
def defaulted(cfg, sandbox, args: Args = Args(mode="soft")): return args
def plain(cfg, sandbox, args): return args
def other_name(cfg, sandbox, options: Mapping[str, Any]): return options
def keyword(cfg, sandbox, *, args: Args): return args
def none(cfg, sandbox): return None
def with_default(cfg, sandbox, key="x"): return key
def unknown(cfg, sandbox, args: Elsewhere): return args
def two_more(cfg, sandbox, args, more): return args

class Made:
    def __init__(self, cfg, sandbox, args: Args) -> None:
        self.args = args
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_judges.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_judges", raising=False)


def call(name: str, args: Mapping[str, Any] | None, key: str = "reward.kind") -> Any:
    make = load_function(f"own_judges:{name}", key, args, "reward.kind")
    return make("cfg", "sandbox")


@pytest.mark.parametrize("name", ["typed", "keyword", "defaulted"])
def test_arguments_are_built_as_the_dataclass_that_they_are_annotated_with(name: str) -> None:
    found = call(name, {"mode": "hard", "share": "1e-1"})
    assert (type(found).__name__, found.mode, found.share) == ("Args", "hard", 0.1)


def test_a_class_takes_them_too() -> None:
    assert call("Made", {"mode": "hard"}).args.share == 0.5


@pytest.mark.parametrize("name", ["plain", "other_name"])
def test_arguments_without_a_dataclass_are_a_mapping(name: str) -> None:
    assert call(name, {"a": 1}) == {"a": 1}
    assert call(name, None) == {}


@pytest.mark.parametrize("name", ["none", "with_default"])
def test_a_function_without_arguments_of_its_own_gets_none(name: str) -> None:
    assert call(name, None) == {"none": None, "with_default": "x"}[name]
    with pytest.raises(UserError, match=r"reward\.args: own_judges:.* has no parameter `args`"):
        call(name, {"a": 1})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"mode": "hard", "share": 2}, r"reward\.args\.share: 2 is not a number >= 0 and <= 1"),
        ({"mode": "hard", "shar": 1}, r"reward\.args\.shar: unknown key; nearest valid: share"),
        ({"mode": "hard", "zzz": 1}, r"reward\.args\.zzz: unknown key; valid: share, mode"),
        ({}, r"reward\.args\.mode: "),
    ],
)
def test_wrong_arguments_are_refused_as_wrong_keys_are(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call("typed", args)


def test_those_of_a_component_are_named_by_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^reward\.components\.form\.args\.share: 2 is not"):
        call("typed", {"mode": "hard", "share": 2}, "reward.components.form.judge")


def test_an_annotation_that_is_not_at_hand_and_one_argument_too_many_are_said() -> None:
    with pytest.raises(UserError, match=r"`args` is annotated with is not at hand .*Elsewhere"):
        call("unknown", {})
    with pytest.raises(UserError, match=r"must take a RewardConfig and an ExecutionConfig .*more"):
        call("two_more", {})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("reward.args={a: 1}", "reward.args: reward.args are those of a judge from outside"),
        ("reward.rule_args={a: 1}", "reward.rule_args: reward.rule_args are those of a rule of"),
        ("algorithm.args={a: 1}", "algorithm.args: algorithm.args are those of an objective from"),
        ("data.args={a: 1}", "data.args: data.args are those of problems from outside"),
    ],
)
def test_arguments_that_nothing_reads_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shipped_config([f"++{override}"])
    assert str(caught.value).startswith(said)


def test_those_of_a_component_that_is_of_this_tree_are_refused_too() -> None:
    raw = to_dict(shipped_config(["reward=execution"]))
    one = {"judge": "format", "args": {"a": 1}}
    raw["reward"] |= {"kind": "sum", "components": {"form": one, "tests": {"judge": "execution"}}}
    said = r"reward\.components\.form\.args: .* judge from outside"
    with pytest.raises(ConfigError, match=said):
        build_config(raw)
