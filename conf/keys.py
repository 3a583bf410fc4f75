"""The keys of a schema: what `conf.schema.key` declared, as data for messages and tables."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeGuard, Union, cast, get_args, get_origin, get_type_hints

NAME = re.compile(r"[a-z][a-z0-9_]*")  # of a section that a user names
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
MIN_LIKENESS = 0.7  # of `difflib`; below it a suggestion would be a guess

# Values of keys that have no default: they appear in messages as a way to write the key.
EXAMPLES: Mapping[str, Any] = {
    "experiment": "quickstart",
    "name": "run",
    "model.path": "assets/minipy/policy",
    "model.max_prompt_tokens": 128,
    "model.max_completion_tokens": 64,
    "algorithm.num_steps": 60,
    "algorithm.prompts_per_step": 16,
    "algorithm.group_size": 8,
    "policy.lr": "1e-5",
    "policy.microbatch_tokens": 4096,
    "ray.env": "{OMP_NUM_THREADS:'1'}",
}


# What a number without a bound of its own may be at most: an integer that every library counts with
# (seeds, sizes), and 30 years in seconds, beyond which waits overflow.
LARGEST: Mapping[type, int] = {int: 2**31 - 1, float: 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One leaf of a schema, as declared with `conf.schema.key`."""

    path: str  # dotted
    hint: Any  # without `| None`
    optional: bool
    default: Any  # `dataclasses.MISSING` when there is none
    doc: str
    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    importable: bool = False  # beside its choices it takes the path of something to import

    @property
    def required(self) -> bool:
        """True when there is no default: someone has to give a value."""
        return self.default is MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a `Literal`, or of a list of one; empty for other types."""
        inner = get_args(self.hint)[0] if get_origin(self.hint) is tuple else self.hint
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def named(self) -> type | None:
        """The schema of each section of a mapping whose names a user chooses."""
        inner = get_args(self.hint)[-1] if get_origin(self.hint) is dict else None
        return inner if is_section(inner) else None

    @property
    def is_list(self) -> bool:
        """True for several integers (bounds then hold for each), texts or choices."""
        return get_origin(self.hint) is tuple

    @property
    def type_name(self) -> str:
        """What a value must be, without its range: `an integer`, `true or false`, ..."""
        if self.choices:
            return self._choices_name
        if get_origin(self.hint) is dict:
            return self._mapping_name
        if self.hint == tuple[str, ...]:
            return "one or more texts such as a,b"
        if self.is_list:
            return "one or more integers such as 1,8"
        names = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
        return names[self.hint]

    @property
    def _mapping_name(self) -> str:
        if self.hint == dict[str, str]:
            return "a mapping of text to text"
        to = "values" if self.named is None else "groups of keys"
        return f"a mapping of names to {to}"

    @property
    def _choices_name(self) -> str:
        names = ", ".join(self.choices)
        if self.importable:
            return f"one of {names}, or what to import, as in my_package.module:make"
        return f"a list such as [a,b] of {names}" if self.is_list else f"one of {names}"

    @property
    def range_name(self) -> str:
        """The allowed range, such as `> 0 and <= 1`; empty when there is none."""
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)

    @property
    def largest(self) -> int | None:
        """The bound of its type, where a number has no upper bound of its own."""
        item = get_args(self.hint)[0] if self.is_list else self.hint
        return LARGEST.get(item) if self.le is None and self.lt is None else None

    def is_too_large(self, number: float) -> bool:
        """Whether a number is beyond the bound of its type."""
        return self.largest is not None and abs(number) > self.largest

    def holds(self, number: float) -> bool:
        """Whether a number lies within the range and the bound of its type."""
        above = (self.ge is None or number >= self.ge) and (self.gt is None or number > self.gt)
        below = (self.le is None or number <= self.le) and (self.lt is None or number < self.lt)
        return above and below and not self.is_too_large(number)

    @property
    def rule(self) -> str:
        """Type and range in one phrase."""
        link = ", each" if self.is_list and self.range_name else ""
        rule = f"{self.type_name}{link} {self.range_name}".rstrip()
        return f"{rule}, or null" if self.optional else rule

    @property
    def example(self) -> str:
        """An override that satisfies the rule."""
        value = EXAMPLES.get(self.path, self.default)
        if value in (MISSING, None, ()):
            value = self.choices[0] if self.choices else "..."
        return f"{self.path}={as_yaml(value)}"


def keys_of(schema: type, prefix: str = "") -> list[Key]:
    """Every leaf of a schema dataclass, in order of declaration."""
    keys: list[Key] = []
    for item, hint in hinted_fields(schema):
        path = prefix + item.name
        if is_section(hint):
            keys += keys_of(hint, f"{path}.")
            continue
        bare, optional, importable = _parts_of(hint)
        meta = item.metadata
        keys.append(
            Key(
                path=path,
                hint=bare,
                optional=optional,
                default=item.default,
                doc=meta["doc"],
                ge=meta["ge"],
                gt=meta["gt"],
                le=meta["le"],
                lt=meta["lt"],
                importable=importable,
            )
        )
    return keys


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate `word` probably stands for: close as a whole or in its last part, or cut off.

    >>> nearest("polcy.lr", ["policy.lr", "loop.rm_lr"]), nearest("flash", ["sdpa", "flash_2"])
    ('policy.lr', 'flash_2')
    """

    def likeness(name: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, word, name).ratio()
        tails = word.rpartition(".")[2], name.rpartition(".")[2]
        tail = difflib.SequenceMatcher(None, *tails).ratio()
        return max(whole, tail, float(name.startswith(word))), whole

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= MIN_LIKENESS else None


# Ours, as the last part of a key or its whole path, and what other tools call it; a name that is
# neither is guessed by its letters.
_OTHER_NAMES: Mapping[tuple[str, ...], str] = {
    ("engines", "shards", "ranks", "test_workers"): "workers actors replicas",
    ("engines",): "num_engines vllm_num_engines",
    ("algorithm.group_size", "num_samples"): "n n_samples_per_prompt num_return_sequences",
    ("num_samples",): "samples",
    ("group_size",): "num_generations",
    ("num_steps", "epochs"): "total_epochs num_epochs num_train_epochs",
    ("num_steps",): "steps max_steps total_training_steps",
    ("prompts_per_step", "batch_pairs"): "batch_size train_batch_size rollout_batch_size",
    ("microbatch_tokens",): "micro_train_batch_size per_device_train_batch_size "
    "gradient_accumulation_steps ppo_micro_batch_size_per_gpu ppo_max_token_len_per_gpu",
    ("minibatches_per_step",): "ppo_mini_batch_size",
    ("policy.lr", "lr"): "learning_rate learnrate actor_learning_rate",
    ("lr_schedule",): "lr_scheduler_type",
    ("warmup_steps",): "warmup_ratio",
    ("grad_clip",): "max_grad_norm",
    ("kl_coef",): "beta init_kl_coef kl_loss_coef",
    ("entropy_coef",): "entropy_coeff",
    ("advantage_baseline",): "adv_estimator advantage_estimator",
    ("advantage_scale",): "scale_rewards",
    ("loss_aggregation",): "loss_type loss_agg_mode",
    ("clip_eps_low",): "clip_ratio clip_ratio_low cliprange epsilon",
    ("clip_eps_high",): "clip_ratio_high epsilon_high",
    ("max_tokens",): "max_length",
    ("max_prompt_tokens",): "max_prompt_length prompt_max_len",
    ("model.max_completion_tokens", "max_tokens"): "max_response_length max_completion_length "
    "max_new_tokens generate_max_len",
    ("train_path",): "train_files train_data prompt_data",
    ("eval_path",): "val_files eval_data",
    ("model.path", "model", "policy"): "model_name_or_path pretrain",
    ("reward.model", "reward_model"): "reward_pretrain",
    ("model.dtype", "dtype"): "torch_dtype bf16",
    ("rollout.tensor_parallel", "tensor_parallel"): "tp tensor_parallel_size "
    "tensor_model_parallel_size",
    ("placement.colocate",): "vllm_mode colocate_all_models",
    ("placement.num_nodes",): "nnodes",
    ("placement.node.gpus",): "n_gpus_per_node",
    ("policy.lora.rank",): "lora_rank lora_r",
    ("policy.lora.alpha",): "lora_alpha",
    ("policy.lora.layers",): "target_modules",
    ("checkpoint.every", "checkpoint_every", "every"): "save_steps save_freq save_every",
    ("evaluation.every",): "test_freq eval_steps",
    ("trackers",): "report_to logger",
    ("name",): "run_name experiment_name",
}
_SYNONYMS = {word: ours for ours, words in _OTHER_NAMES.items() for word in words.split()}


def meant(path: str, known: Iterable[str]) -> str | None:
    """The key that another tool's name for it stands for: of the same group, if there is one.

    >>> meant("rollout.actors", ["reward.shards", "rollout.engines"]), meant("n", ["num_samples"])
    ('rollout.engines', 'num_samples')
    >>> meant("rollout.n", ["algorithm.group_size", "evaluation.num_samples", "probe.num_samples"])
    'algorithm.group_size'
    """
    names = list(known)
    group, _, word = path.rpartition(".")
    words = _SYNONYMS.get(word, ())
    found = [name for name in names if name.rpartition(".")[2] in words]
    near = [name for name in found if name.rpartition(".")[0] == group]
    whole = [name for name in words if name in names]
    alone = found if len(found) == 1 else []
    return next(iter([*near, *whole, *alone]), None)


def as_yaml(value: object) -> str:
    """A value as one writes it in YAML and in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return f"[{','.join(map(as_yaml, items))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def converted(key: Key, value: object) -> object:
    """The value in the key's type, or None when it is of another."""
    result: object = None
    if key.choices and key.is_list:
        result = _choices(key, value)
    elif key.choices:
        known = value in key.choices or (key.importable and is_import_path(value))
        result = value if known else None
    elif key.hint is bool:
        result = value if isinstance(value, bool) else None
    elif key.hint is int:
        result = value if _is_integer(value) else None
    elif key.hint is float:
        result = _number(value)
    elif key.hint is str:
        # An override such as `name=7` is parsed as a number, but means text.
        result = str(value) if isinstance(value, str) or _is_integer(value) else None
    elif key.hint == tuple[str, ...]:
        result = _texts(value)
    elif key.is_list:
        result = _integers(value)
    elif isinstance(value, Mapping):
        given = cast("Mapping[object, object]", value)
        result = _text_mapping(given) if key.hint == dict[str, str] else _named(given)
    return result


def is_import_path(value: object) -> TypeGuard[str]:
    """Whether a value names something to import: `my_package.module:make`."""
    return isinstance(value, str) and _IMPORT_PATH.fullmatch(value) is not None


def _named(value: Mapping[object, object]) -> dict[str, object] | None:
    """Plain values by name."""
    if not all(isinstance(name, str) for name in value):
        return None
    return {str(name): item for name, item in value.items()}


def _number(value: object) -> float | None:
    """A finite float of an int, a float, or text: YAML 1.1 reads `1e-4` as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text_mapping(value: Mapping[object, object]) -> dict[str, str] | None:
    """Names to text; numbers become text, as environment variables want it."""
    if not all(isinstance(item, str | int | float) for item in value.values()):
        return None
    if not all(isinstance(name, str) for name in value):
        return None
    return {str(name): str(item) for name, item in value.items()}


def _integers(value: object) -> tuple[int, ...] | None:
    """Several integers of a list, of text such as `1,8`, or of one integer; never none."""
    parts: list[object] = [value]
    if isinstance(value, str):
        parts = [int(part) for part in value.split(",") if part.strip().isdecimal()]
        if len(parts) != value.count(",") + 1:
            return None
    elif isinstance(value, list | tuple):
        parts = list(cast("Iterable[object]", value))
    found = tuple(part for part in parts if _is_integer(part))
    return found if found and len(found) == len(parts) else None


def _texts(value: object) -> tuple[str, ...] | None:
    """Several texts of a list, or of one text; never none."""
    parts = _parts(value)
    found = tuple(part for part in parts if isinstance(part, str) and part)
    return found if found and len(found) == len(parts) else None


def _choices(key: Key, value: object) -> tuple[object, ...] | None:
    """Several choices of a list, or of one choice; there may be none."""
    found = _parts(value)
    return found if all(part in key.choices for part in found) else None


def wrong_choice(key: Key, value: object) -> str:
    """The first that is not a choice."""
    parts = _parts(value) if key.is_list else (value,)
    return next((str(part) for part in parts if part not in key.choices), "")


def _parts(value: object) -> tuple[object, ...]:
    """The items of a list; anything else is one item."""
    return tuple(cast("Iterable[object]", value)) if isinstance(value, list | tuple) else (value,)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def hinted_fields(schema: type) -> list[tuple[Field[Any], Any]]:
    """Fields of a dataclass with their resolved types."""
    hints = get_type_hints(schema)
    return [(item, hints[item.name]) for item in fields(schema)]


def is_section(hint: object) -> TypeGuard[type]:
    """True for a dataclass: a group of keys rather than a value."""
    return isinstance(hint, type) and is_dataclass(hint)


def _parts_of(hint: object) -> tuple[object, bool, bool]:
    """The type inside `X | None` or `Literal[...] | str`; whether None, whether a path may be."""
    if get_origin(hint) not in {Union, types.UnionType}:
        return hint, False, False
    inner = [arg for arg in get_args(hint) if arg is not types.NoneType]
    return inner[0], types.NoneType in get_args(hint), len(inner) > 1
