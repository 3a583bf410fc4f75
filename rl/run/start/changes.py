"""What a resumed run may change: its configuration against that of the steps so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from conf.keys import as_yaml, keys_of
from conf.schema import Config
from conf.validate import to_dict
from rl.base.json_text import JsonFault, parse_json

OF_THE_CALL = ("resume", "resume_allow", "overwrite", "dry_run")  # they change no result
_PLACES = ("experiment", "name", "output_dir")
_DATA = ("data.train_path", "data.eval_path", "data.untested_path", "probe.path")
_PATHS = ("model.path", "reward.model", *_DATA)
_SHIPPED = "/assets/minipy/"  # a shipped model lies in the tree of the command, wherever that is
_SHOWN_CHARS = 60

# What the recorded steps depend on, so that steps with another value are not of the same run.
FIXED = (
    *("seed", "recipe", "recipe_args", "data.*", "model.*", "algorithm.*", "loop.*"),
    *("rollout.temperature", "rollout.top_p", "rollout.top_k"),
    *("reward.kind", "reward.model", "reward.adapter", "reward.system", "reward.dtype"),
    *("reward.max_tokens", "reward.shaping", "reward.rule", "reward.ignore_think"),
    *("reward.reads", "reward.trivial_is_valid", "reward.execution", "reward.test_timeout_s"),
    *("reward.generative.*", "reward.remote.*", "reward.components", "reward.combine"),
    "reward.disagreement_coef",
    *("policy.lr", "policy.lr_schedule", "policy.warmup_steps", "policy.weight_decay"),
    *("policy.adam_beta1", "policy.adam_beta2", "policy.grad_clip"),
    "policy.lora.*",
    *("sandbox.protocol", "sandbox.tolerance", "probe.num_*", "probe.path"),
    *("evaluation.num_samples", "evaluation.temperature", "evaluation.test_timeout_s"),
)
FREE = (
    *("algorithm.num_steps", "model.max_prompt_tokens", "data.max_bad_rows"),
    *("loop.cache_dir", "loop.export_dir"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is not that of the steps so far.

    >>> print(Change("checkpoint.every", 0, 10))
    checkpoint.every 0 -> 10
    """

    path: str
    before: object
    now: object

    def __str__(self) -> str:
        """As a list shows it."""
        return f"{self.path} {_shown(self.before)} -> {_shown(self.now)}"

    @property
    def is_fixed(self) -> bool:
        """Whether the steps so far depend on the key."""
        return matches(self.path, FIXED) and not matches(self.path, FREE)


def read_config(path: Path) -> Mapping[str, Any] | None:
    """The configuration that a run has written; None where there is none that can be read."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, JsonFault):
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def changes(before: Mapping[str, Any], cfg: Config) -> list[Change]:
    """The keys in which `cfg` differs, in the order of the reference.

    A key that the earlier configuration does not know yet counts with its default.
    """
    now = json.loads(json.dumps(to_dict(cfg)))
    found: list[Change] = []
    for key in keys_of(Config):
        if key.path in (*OF_THE_CALL, *_PLACES):
            continue
        default = None if key.default is MISSING else json.loads(json.dumps(key.default))
        change = Change(key.path, _at(before, key.path, default), _at(now, key.path, default))
        if not _is_same(change):
            found.append(change)
    return found


def check_changes(config: Path, cfg: Config) -> list[Change]:
    """The changes that a run of `cfg` makes when it goes on from the run that wrote `config`.

    Raises:
        UserError: for changes on which the steps so far depend, unless `resume_allow` has them.
    """
    allowed = cfg.resume_allow or ()
    before = read_config(config)
    if before is None:
        if "*" in allowed:
            return []
        raise UserError(
            f"resume: {config}, which says how the steps so far were made, cannot be read; give "
            "another name=, or resume_allow=[*] to go on all the same"
        )
    found = changes(before, cfg)
    faults = [_fault(change, config) for change in found if not _is_allowed(change, allowed)]
    if faults:
        raise UserError("\n".join(faults))
    return found


def _is_allowed(change: Change, allowed: Sequence[str]) -> bool:
    return not change.is_fixed or matches(change.path, allowed)


def _fault(change: Change, config: Path) -> str:
    path, before = change.path, _shown(change.before)
    ways = f"give the same value, another name=, or resume_allow=[{path}]"
    made = f"the steps so far were made with {before} ({config})"
    return f"{path}: {made}, and now it is {_shown(change.now)}; {ways}"


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a key is among keys and patterns of some."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _at(config: Mapping[str, Any], path: str, default: object) -> object:
    value: object = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = cast("Mapping[str, object]", value)[name]
    return value


def _is_same(change: Change) -> bool:
    before, now = change.before, change.now
    if before == now or (change.path == "recipe_args" and _anywhere(before) == _anywhere(now)):
        return True
    if change.path not in _PATHS or not isinstance(before, str) or not isinstance(now, str):
        return False
    return _place(before) == _place(now)


def _anywhere(args: object) -> object:
    """Arguments of a recipe, with what is shipped named by its place in the tree."""
    if not isinstance(args, Mapping):
        return args
    given = cast("Mapping[str, object]", args)
    return {
        name: value.rpartition(_SHIPPED)[2] if isinstance(value, str) else value
        for name, value in given.items()
    }


def _place(path: str) -> str:
    """A path that is the same from every folder and every copy of the tree."""
    whole = str(Path(path).resolve())
    _, shipped, inside = whole.rpartition(_SHIPPED)
    return inside if shipped else whole


def _shown(value: object) -> str:
    plain = tuple(cast("list[object]", value)) if isinstance(value, list) else value
    text = " ".join(as_yaml(plain).split())
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
