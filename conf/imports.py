"""What a setting names from outside this tree: `my_package.module:make`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

from conf.errors import UserError
from conf.validate import ConfigError, build

# What the function that a setting names is called with.
CALLED_WITH: dict[str, tuple[str, ...]] = {
    "recipe": ("a Setup",),
    "algorithm.kind": ("a Config",),
    "reward.kind": ("a RewardConfig", "an ExecutionConfig"),
    "reward.rule": ("a text", "an ExtractConfig"),
    "data.kind": ("a DataConfig", "a seed"),
}


def load(path: str, key: str) -> Any:  # noqa: ANN401 - whatever the module holds
    """The object that `path` names, for the setting `key`.

    Raises:
        UserError: when the module cannot be imported or has no such name.

    >>> load("json:loads", "source")("[1]")
    [1]
    """
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a module raises whatever it likes
        raise UserError(
            f"{key}: {module!r} cannot be imported ({type(error).__name__}: {error}); its folder "
            "must be on PYTHONPATH, on every node"
        ) from error
    if not hasattr(found, name):
        raise UserError(f"{key}: {module!r} has no {name!r}; give module:name")
    return getattr(found, name)


def load_function(
    path: str, key: str, args: Mapping[str, Any] | None = None, like: str | None = None
) -> Callable[..., Any]:
    """The function that `path` names, for a setting of `CALLED_WITH`, or one that is `like` one.

    It may take one more argument, `args` or one without a default, which is bound here: the
    settings of `args_key(key)`, as the dataclass of `conf.schema.key` fields that the argument is
    annotated with, or else as a mapping.

    Raises:
        UserError: as `load` does, and for what cannot be called like that.
        ConfigError: for settings that it does not take, or of which one is wrong.
    """
    found = load(path, key)
    wanted = CALLED_WITH[like or key]
    form = f"{key}: {path}: it must take {' and '.join(wanted)}"
    if not callable(found):
        raise UserError(f"{form}; it is a {type(found).__name__}")
    try:
        signature = inspect.signature(found)
    except ValueError:  # some built-in functions do not say what they take
        return found
    more = next(filter(_is_for_args, list(signature.parameters.values())[len(wanted) :]), None)
    try:
        signature.bind(*wanted, **({more.name: args} if more else {}))
    except TypeError as error:
        raise UserError(f"{form} ({error})") from error
    if more is not None:
        return partial(found, **{more.name: _built(found, more.annotation, args or {}, key)})
    if args:
        raise UserError(f"{args_key(key)}: {path} has no parameter `args`; add it, or give none")
    return found


def args_key(key: str) -> str:
    """The setting with the arguments of what another one names.

    >>> args_key("reward.kind"), args_key("reward.rule"), args_key("recipe")
    ('reward.args', 'reward.rule_args', 'recipe_args')
    """
    group, _, name = key.rpartition(".")
    return f"{group}.args" if name in ("kind", "judge") else f"{key}_args"


def _is_for_args(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return named and (parameter.name == "args" or parameter.default is parameter.empty)


def _built(found: Any, annotation: Any, args: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    """The arguments as their annotation wants them."""
    if isinstance(annotation, str):  # of a module in which annotations are not evaluated
        hinted: Any = SimpleNamespace(__annotations__={"args": annotation})
        try:
            annotation = get_type_hints(hinted, vars(sys.modules[found.__module__]))["args"]
        except NameError as error:
            raise UserError(
                f"{key}: what `args` is annotated with is not at hand when the module is imported "
                f"({error}); import it outside of TYPE_CHECKING"
            ) from error
    if not is_dataclass(annotation):
        return dict(args)
    try:
        return build(cast("type[Any]", annotation), args)
    except ConfigError as error:
        raise ConfigError(error.below(args_key(key))) from error
