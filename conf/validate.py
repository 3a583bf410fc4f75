"""From composed YAML to `conf.schema.Config`: every fault is found before anything starts.

The walk over the schema is generic (`build`), so that small commands declare their keys the same
way. Relations between fields are data (`conf.relations`): check, message and docs share them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from conf.keys import (
    EXAMPLES,
    NAME,
    Key,
    as_yaml,
    converted,
    hinted_fields,
    is_section,
    keys_of,
    meant,
    nearest,
    wrong_choice,
)
from conf.recipes import ARGS
from conf.relations import CAUTIONS, JUDGE_RELATIONS, RELATIONS, Relation
from conf.schema import ComponentConfig, Config

T = TypeVar("T")

NOTHING = "???"  # how OmegaConf writes a value that someone has to give
SHOWN_CHARS = 80
_FEW = 12  # keys that are named all


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, and the value, the rule and the fix in words.

    >>> print(Fault("policy.lr", "'fast' is not a number > 0"))
    policy.lr: 'fast' is not a number > 0
    """

    path: str
    message: str

    def __str__(self) -> str:
        """One line of a report."""
        return f"{self.path}: {self.message}"


class ConfigError(ValueError):
    """A configuration that cannot run; its text has one line per fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__(self.faults)  # what pickle calls the constructor with

    def under(self, names: Mapping[str, str]) -> ConfigError:
        """The same faults in the words of a command whose keys fill those of `names`."""
        return ConfigError(
            Fault(names.get(fault.path, fault.path), _renamed(fault.message, names))
            for fault in self.faults
        )

    def below(self, place: str) -> list[Fault]:
        """The same faults, of keys that stand below `place`."""
        return [
            Fault(
                f"{place}.{fault.path}",
                fault.message.replace(f"e.g. {fault.path}=", f"e.g. {place}.{fault.path}="),
            )
            for fault in self.faults
        ]

    def __str__(self) -> str:
        """All faults, in the order of the schema; relations come last."""
        return "\n".join(map(str, self.faults))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for path, name in names.items():
        text = re.sub(rf"(?<![\w.]){re.escape(path)}(?!\w)", name, text)
    return text


def build(
    schema: type[T], raw: Mapping[str, Any], moved: Mapping[str, str] = MappingProxyType({})
) -> T:
    """Make a schema dataclass of plain nested values; `moved` has what former keys are now.

    Raises `ConfigError` with every unknown key, missing value, wrong type, wrong choice and value
    out of range. `null` and `???` count as missing where the schema wants a value.
    """
    values, faults = _check_values(schema, raw, moved)
    if faults:
        raise ConfigError(faults)
    return _assemble(schema, values)


def build_config(raw: Mapping[str, Any]) -> Config:
    """Make the configuration of a run, or raise `ConfigError` with all faults at once.

    Relations between fields are checked even when some field is wrong; only those that involve a
    wrong field are left out.
    """
    values, faults = _check_values(Config, raw)
    config = _assemble(Config, values)
    faults += _broken(RELATIONS, config, [fault.path for fault in faults])
    if all(fault.path not in ("recipe", "recipe_args") for fault in faults):
        faults += _recipe_faults(config)
    if config.reward.kind == "sum":
        faults += _component_faults(config)
    if faults:
        raise ConfigError(faults)
    return _without_unused(config)


def _recipe_faults(config: Config) -> list[Fault]:
    """What is wrong with the arguments of a recipe of this tree; others check their own."""
    try:
        if config.recipe in ARGS:
            build(ARGS[config.recipe], config.recipe_args or {})
    except ConfigError as error:
        return error.below("recipe_args")
    return []


def _component_faults(config: Config) -> list[Fault]:
    """What is wrong with a judge of a sum, which is checked as it would be alone."""
    faults: list[Fault] = []
    for name, one in (config.reward.components or {}).items():
        place = f"reward.components.{name}"
        if one.weight == 0:
            what = "0 leaves the component out of the sum (give another weight, or remove it)"
            faults.append(Fault(f"{place}.weight", what))
        if one.length.from_chars >= one.length.to_chars:
            bounds = f"from_chars={one.length.from_chars}, to_chars={one.length.to_chars}"
            what = f"from_chars is below to_chars; got {bounds} (change either)"
            faults.append(Fault(f"{place}.length.to_chars", what))
        names = {f"reward.{key.path}": f"{place}.{key.path}" for key in keys_of(ComponentConfig)}
        names["reward.kind"] = f"{place}.judge"
        alone = replace(config, reward=config.reward.judges[name])
        own = [relation for relation in JUDGE_RELATIONS if relation.path in names]
        faults += ConfigError(_broken(own, alone)).under(names).faults
    return faults


def _without_unused(config: Config) -> Config:
    """The configuration as it will be used: without the model, shaping or servers of others.

    An experiment names its reward model whoever judges, so that `reward=execution` is one override;
    what is shown and stored must not look as if the model had been used.
    """
    return replace(config, reward=config.reward.used)


def cautions(config: Config) -> list[Fault]:
    """What is allowed, but seldom meant."""
    return _broken(CAUTIONS, config)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, for `config.yaml`; `build_config` makes an equal Config of them."""
    return asdict(config)


# --- one field ---------------------------------------------------------------------------------


def _check_values(
    schema: type, raw: Mapping[str, Any], moved: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, Any], list[Fault]]:
    """Value of every key by path, stand-ins where a value is wrong, and the faults."""
    keys = {key.path: key for key in keys_of(schema)}
    sections = {path[:end] for path in keys for end, char in enumerate(path) if char == "."}
    given = dict(_flatten(raw, "", keys, sections))
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    broken_sections = [path for path in given if path in sections]
    for path, key in keys.items():
        values[path] = _stand_in(key)
        if any(path.startswith(f"{section}.") for section in broken_sections):
            continue
        try:
            values[path] = _sections_of(key, _value_of(key, given.get(path, key.default)))
        except _BadValueError as bad:
            faults.append(Fault(path, str(bad)))
        except ConfigError as error:
            faults += error.faults
    for path, value in given.items():
        if path in sections:
            faults.append(Fault(path, f"{_shown(value)} stands where a group of keys is expected"))
        elif path in moved:
            faults.append(Fault(path, f"is no key any more; give {moved[path]}"))
        elif path not in keys:
            faults.append(_unknown(path, [*keys, *sorted(sections)]))
    return values, faults


class _BadValueError(ValueError):
    """The reason why a value does not fit its key."""


def _value_of(key: Key, value: object) -> object:
    """The value in its declared type; raises `_BadValueError`."""
    if value is MISSING or value == NOTHING or (value is None and not key.optional):
        raise _BadValueError(f"has no value: {key.doc} (give e.g. {key.example})")
    if value is None:
        return None
    found = converted(key, value)
    if found is None or not _in_range(key, found):
        hint = f"give e.g. {key.example}"
        if key.choices and (close := nearest(wrong_choice(key, value), key.choices)):
            hint = f"nearest: {close}"
        beyond = isinstance(found, int | float) and key.is_too_large(found)
        within = f", at most {key.largest}" if beyond else ""
        raise _BadValueError(f"{_shown(value)} is not {key.rule}{within} ({hint})")
    return found


def _sections_of(key: Key, value: object) -> object:
    """The groups of keys that a user has named, each in its schema; any other value as it is.

    Raises `ConfigError`.
    """
    if key.named is None or not isinstance(value, Mapping):
        return value
    found: dict[str, object] = {}
    faults: list[Fault] = []
    for name, raw in cast("Mapping[str, object]", value).items():
        place = f"{key.path}.{name}"
        if not NAME.fullmatch(name):
            faults.append(Fault(place, "a name has small letters, digits and _, a letter first"))
        elif not isinstance(raw, Mapping):
            faults.append(Fault(place, f"{_shown(raw)} stands where a group of keys is expected"))
        else:
            try:
                found[name] = build(key.named, cast("Mapping[str, Any]", raw))
            except ConfigError as error:
                faults += error.below(place)
    if faults:
        raise ConfigError(faults)
    return found


def _in_range(key: Key, value: object) -> bool:
    if isinstance(value, tuple):
        return all(_in_range(key, item) for item in cast("tuple[object, ...]", value))
    return key.holds(value) if isinstance(value, int | float) else True


def _unknown(path: str, known: Iterable[str]) -> Fault:
    names = list(known)
    close = meant(path, names) or nearest(path, names)
    advice = "--help lists the keys"
    if close:
        advice = f"nearest valid: {close}"
    elif len(names) <= _FEW:
        advice = f"valid: {', '.join(names) or 'none'}"
    return Fault(path, f"unknown key; {advice}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


# --- walking a schema --------------------------------------------------------------------------


def _flatten(
    raw: Mapping[str, Any], prefix: str, keys: Mapping[str, Key], sections: AbstractSet[str]
) -> Iterable[tuple[str, Any]]:
    """Leaves of nested values by dotted path; a mapping is a leaf where the schema has one."""
    for name, value in raw.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and path not in keys and (value or path in sections):
            inner = cast("Mapping[str, Any]", value)
            yield from _flatten(inner, f"{path}.", keys, sections)
        else:
            yield path, value


def _stand_in(key: Key) -> object:
    """A valid value that lets a Config exist while its faults are collected."""
    if not key.required:
        return key.default
    if key.choices:
        return key.choices[0]
    stand_ins = {bool: False, int: 1, float: 1.0, str: ""}
    return converted(key, EXAMPLES.get(key.path)) or stand_ins.get(key.hint, {})


def _assemble(schema: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    arguments: dict[str, Any] = {}
    for item, hint in hinted_fields(schema):
        path = prefix + item.name
        section = is_section(hint)
        arguments[item.name] = _assemble(hint, values, f"{path}.") if section else values[path]
    return schema(**arguments)


def _broken(
    relations: Iterable[Relation], config: Config, wrong: Iterable[str] = ()
) -> list[Fault]:
    """Faults of the relations that do not hold, but for those that involve a key in `wrong`.

    A wrong section (`policy=3`) hides all of its keys, and a wrong key of a named one the mapping.
    """
    hidden = tuple(f"{path}." for path in wrong)
    faults: list[Fault] = []
    for relation in relations:
        paths = tuple(f"{path}." for path in relation.involves)
        hides = any(path.startswith(hidden) for path in paths)
        if hides or any(path.startswith(paths) for path in hidden) or relation.holds(config):
            continue
        got = ", ".join(f"{path}={_as_got(_at(config, path))}" for path in relation.involves)
        faults.append(Fault(relation.path, f"{relation.rule}; got {got} ({relation.fix})"))
    return faults


def _as_got(value: object) -> str:
    """A value as a fault shows it; of an environment the names only, because of secrets."""
    if not isinstance(value, Mapping):
        return as_yaml(value)
    names = cast("Mapping[str, str]", value)
    return f"{{{', '.join(f'{name}: ...' for name in names)}}}"


def _at(config: Config, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
