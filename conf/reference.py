"""The text of docs/reference.md: groups, experiments, keys and the rules between them."""

from __future__ import annotations

from collections.abc import Iterable

from conf.groups import about_choice, about_group, choices, files_chosen_by, keys_set_by
from conf.keys import Key, as_yaml, keys_of
from conf.relations import CAUTIONS, RELATIONS
from conf.schema import Config


def reference_markdown() -> str:
    """Everything that can be set in a run, from what the code itself reads."""
    lines = [
        "# Configuration reference",
        "",
        "Written from `conf/` by `make docs`. Any key of a run is set with `key=value` on the",
        "command line; `group=choice` takes a whole file of `conf/group/`. A group's file fills",
        "keys, the experiment's file has the last word over it, and the command line over both.",
        "",
        *_groups(),
        "",
        *_experiments(),
        "",
        *_keys(),
        "",
        *_named_keys(),
        *_rules(),
    ]
    return "\n".join(lines) + "\n"


def _groups() -> Iterable[str]:
    yield from ("## Groups", "", "| group=choice | |", "|---|---|")
    for group, files in choices().items():
        yield f"| **`{group}`** | {about_group(group)} |"
        for name, file in files.items():
            yield f"| `{group}={name}` | {about_choice(file)} |"


def _experiments() -> Iterable[str]:
    yield from (
        "## What each experiment sets",
        "",
        "Groups (or the experiment) that it starts from, and the keys that it sets itself.",
        "",
        "| experiment | groups | keys |",
        "|---|---|---|",
    )
    for name, file in choices()["experiment"].items():
        chosen = " ".join(f"`{choice}`" for choice in files_chosen_by(file))
        keys = " ".join(f"`{path}={as_yaml(value)}`" for path, value in keys_set_by(file).items())
        yield f"| `{name}` | {chosen} | {keys} |"


def _keys() -> Iterable[str]:
    yield from (
        "## Keys",
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    )
    for key in keys_of(Config):
        default = "given in YAML" if key.required else f"`{as_yaml(key.default)}`"
        yield f"| `{key.path}` | {key.rule} | {default} | {key.doc} |"


def _named_keys() -> Iterable[str]:
    """Keys of the groups that a user names."""
    for key in keys_of(Config):
        if key.named is None:
            continue
        yield from (
            f"## Keys below {key.path}.NAME",
            "",
            "| key | value | default | meaning |",
            "|---|---|---|---|",
            *map(_row, keys_of(key.named)),
            "",
        )


def _row(key: Key) -> str:
    default = "has to be given" if key.required else f"`{as_yaml(key.default)}`"
    return f"| `{key.path}` | {key.rule} | {default} | {key.doc} |"


def _rules() -> Iterable[str]:
    yield from ("## Rules between keys", "", "Each of these stops a command before it starts.", "")
    for relation in RELATIONS:
        yield f"- `{relation.path}`: {relation.rule}."
    yield from ("", "These are allowed, with a warning.", "")
    for relation in CAUTIONS:
        yield f"- `{relation.path}`: {relation.rule}."
