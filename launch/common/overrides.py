"""Overrides `key=value` of the command line: Hydra's grammar, and what a sweep makes of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer

from conf.errors import UserError
from conf.groups import choices


def forced_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of the command line as Hydra has to see them."""
    return [_forced(override) for override in parse(overrides)]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides of the form `key=value`; raises Hydra's OverrideParseException for others.

    Raises `UserError` for one without a key, and for a mapping that has a name twice, of which
    Hydra would take the last.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if not override.key_or_group:
            raise UserError(f"{override.input_line}: names no key; give it as key=value")
        if isinstance(override.value(), dict):
            _refuse_repeated(override)
    return parsed


def _refuse_repeated(override: Override) -> None:
    text = cast("str", override.input_line).partition("=")[2]
    try:
        nodes = [yaml.compose(text)]
    except yaml.YAMLError:  # what Hydra's grammar has beyond that of YAML
        return
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.MappingNode):
            continue
        nodes += [value for _, value in node.value]
        names = Counter(str(name.value) for name, _ in node.value)
        for name in (name for name, times in names.items() if times > 1):
            raise UserError(f"{override.key_or_group}: {name} is given twice; give it once")


def _forced(override: Override) -> str:
    name = override.key_or_group
    line = cast("str", override.input_line)
    chooses = name in groups() or "/" in name or override.package is not None
    hydras_own = chooses or override.is_hydra_override() or override.is_delete()
    return line if hydras_own else f"++{line.lstrip('+')}"


def groups() -> dict[str, list[str]]:
    """Groups of the shipped configuration with their choices."""
    return {group: list(files) for group, files in choices().items()}


def override(key: str, text: str) -> str:
    """A command-line override that sets `key` to this very text."""
    escaped = text.replace("'", "\\'")
    return f"++{key}='{escaped}'"


class Lines(NamedTuple):
    """The overrides of one job."""

    swept: dict[str, str]  # the keys that have several values in the sweep, with that of this job
    overrides: list[str]  # all of them, as lines


def expand(overrides: Sequence[str], *, sweep: bool, intervals: bool = False) -> Iterator[Lines]:
    """The overrides of each job of a sweep; one job unless it is one.

    Raises `UserError` for several values without a sweep, and for a range of values unless somebody
    chooses from it (`intervals`).
    """
    axes: list[list[tuple[str | None, str, str]]] = []
    for override in parse(overrides):
        key, line = override.get_key_element(), cast("str", override.input_line)
        if override.is_sweep_override() and not sweep:
            given = f"{override.key_or_group}={override.get_value_string()}"
            raise UserError(
                f"{given}: several values (add --multirun for a run with each; quote a text that "
                "has commas; write a list as [a,b])"
            )
        if override.is_discrete_sweep():
            name, values = override.key_or_group, override.sweep_string_iterator()
            axes.append([(name, value, f"{key}={value}") for value in values])
        elif not override.is_sweep_override():
            axes.append([(None, "", line)])
        elif not intervals:
            raise UserError(
                f"{line.lstrip('+')}: a range has no end of values (list some, as in "
                f"{override.key_or_group}=1,2, or search it with launch/tune.py)"
            )
    for job in itertools.product(*axes):
        swept = {name: value for name, value, _ in job if name is not None}
        yield Lines(swept, [line for _, _, line in job])


def nested(overrides: Iterable[Override], lists: Set[str]) -> dict[str, Any]:
    """Nested plain values of `a.b=value` overrides; `a=1,2` is a list where the key is one."""
    raw: dict[str, Any] = {}
    for override in overrides:
        path = override.key_or_group
        is_list = path in lists and override.is_discrete_sweep()
        if (override.is_sweep_override() and not is_list) or override.is_delete():
            raise UserError(
                f"{override.input_line}: this command takes one value for each key; a text with a "
                f"comma needs quotes of its own: {path}='\"a, b\"'"
            )
        *parents, leaf = path.split(".")
        section = raw
        for parent in parents:
            inner = section.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{override.input_line}: {parent!r} already has the value {inner}")
            section = cast("dict[str, Any]", inner)
        section[leaf] = _plain(override) if is_list else override.value()
    return raw


def _plain(override: Override) -> list[Any]:
    """The values of `a=1,2`, without the quotes of Hydra's grammar."""
    values = override.sweep_iterator(Transformer.identity)
    return [value.text if isinstance(value, QuotedString) else value for value in values]
