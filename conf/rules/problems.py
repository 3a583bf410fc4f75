"""Rules between the keys of problems, and what of a step comes from where."""

from __future__ import annotations

from conf.keys import NAME
from conf.recipes import OFFLINE
from conf.relation import Relation
from conf.schema import Config, DataConfig


def num_untested(config: Config) -> int:
    """Problems of a step that come from those without tests; 0 where there are no such ones."""
    if config.data.untested_path is None:
        return 0
    return round(config.data.untested_share * config.algorithm.prompts_per_step)


def is_staged(config: Config) -> bool:
    """Whether steps without any untested problem come before those that have some."""
    return config.data.untested_path is not None and config.data.untested_from_step > 1


def most_tested(config: Config) -> int:
    """Problems with tests that a step takes at most."""
    num = config.algorithm.prompts_per_step
    return num if is_staged(config) else num - num_untested(config)


def source_counts(config: Config) -> dict[str, int]:
    """Problems of a step that come from each of `data.sources`: largest remainders are rounded up.

    Equal remainders go to the source that is named first.
    """
    sources = config.data.sources or {}
    total = sum(source.weight for source in sources.values())
    num = config.algorithm.prompts_per_step
    exact = {name: source.weight * num / total for name, source in sources.items()}
    counts = {name: int(share) for name, share in exact.items()}
    largest = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in largest[: num - sum(counts.values())]:
        counts[name] += 1
    return counts


def num_drawn(share: float, num: int) -> int:
    """Problems of `num` that a curriculum draws (`data.curriculum.share`); the epoch has one.

    >>> num_drawn(0.5, 7), num_drawn(0.9, 4), num_drawn(0.5, 1)
    (4, 3, 0)
    """
    return max(0, min(round(share * num), num - 1))


def _draws_some(config: Config) -> bool:
    share = config.data.curriculum.share
    untested = num_untested(config)
    parts = source_counts(config).values() or (
        untested,
        config.algorithm.prompts_per_step - untested,
    )
    return not share or any(num_drawn(share, num) for num in parts)


def _has_names(config: Config) -> bool:
    return all(NAME.fullmatch(name) for name in config.data.eval_sets or {})


FILE_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="data.train_path",
        involves=("data.kind", "data.train_path", "data.sources", "recipe"),
        rule="data.kind=parquet needs data.train_path or data.sources, except with recipe=sft and "
        "recipe=dpo",
        fix="give data.train_path=FILE, or data=minipy",
        holds=lambda c: (
            c.data.kind != "parquet"
            or bool(c.data.train_path or c.data.sources)
            or c.recipe in OFFLINE
        ),
    ),
    Relation(
        path="data.eval_path",
        involves=("data.kind", "data.eval_path"),
        rule="data.kind=parquet needs data.eval_path",
        fix="give data.eval_path=FILE, or data=minipy",
        holds=lambda c: c.data.kind != "parquet" or bool(c.data.eval_path),
    ),
    Relation(
        path="data.kind",
        involves=("data.kind", "data.train_path", "data.eval_path"),
        rule="minipy makes its own problems, so files need data.kind=parquet",
        fix="give data=parquet, or no data.train_path and data.eval_path",
        holds=lambda c: c.data.kind != "minipy" or not (c.data.train_path or c.data.eval_path),
    ),
)

SOURCE_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="data.sources",
        involves=("data.sources", "data.kind", "data.train_path", "data.untested_path"),
        rule="data.sources are files (data.kind=parquet), in place of the other training problems",
        fix="give data=parquet with data.eval_path alone, and put the other file into data.sources",
        holds=lambda c: (
            not c.data.sources
            or (c.data.kind == "parquet" and not (c.data.train_path or c.data.untested_path))
        ),
    ),
    Relation(
        path="data.sources",
        involves=("data.sources", "algorithm.prompts_per_step"),
        rule="every source has a problem in each step",
        fix="raise the smallest weight, or algorithm.prompts_per_step",
        holds=lambda c: all(source_counts(c).values()),
    ),
    Relation(
        path="data.sources",
        involves=("data.sources", "algorithm.num_refills"),
        rule="refills would change the shares of the sources",
        fix="set algorithm.num_refills=0",
        holds=lambda c: not c.data.sources or not c.algorithm.num_refills,
    ),
    Relation(
        path="data.eval_sets",
        involves=("data.eval_sets",),
        rule="names of data.eval_sets name metrics: small letters, digits and _, a letter first",
        fix="give such as data.eval_sets={mbpp: FILE}",
        holds=_has_names,
    ),
)

DIFFICULTY_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="data.difficulty.field",
        involves=(
            "data.difficulty.field",
            "data.difficulty.low",
            "data.difficulty.high",
            "data.difficulty.order",
        ),
        rule="bounds and an order go by a number of each problem",
        fix="give data.difficulty.field=NAME of a number in the meta column",
        holds=lambda c: (
            c.data.difficulty.field is not None
            or (
                c.data.difficulty.low is c.data.difficulty.high is None
                and c.data.difficulty.order == "shuffled"
            )
        ),
    ),
    Relation(
        path="data.difficulty.low",
        involves=("data.difficulty.low", "data.difficulty.high"),
        rule="data.difficulty.low is not above data.difficulty.high",
        fix="change either",
        holds=lambda c: (
            c.data.difficulty.low is None
            or c.data.difficulty.high is None
            or c.data.difficulty.low <= c.data.difficulty.high
        ),
    ),
)

CURRICULUM_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="data.curriculum.share",
        involves=(
            "data.curriculum.share",
            "algorithm.prompts_per_step",
            "data.sources",
            "data.untested_path",
            "data.untested_share",
        ),
        rule="a step has a problem that is drawn, and each part of it one that is not",
        fix="raise data.curriculum.share or algorithm.prompts_per_step, or set "
        "data.curriculum.share=0",
        holds=_draws_some,
    ),
    Relation(
        path="data.curriculum.share",
        involves=("data.curriculum.share", "recipe"),
        rule="problems are drawn by what programs earn; recipe=sft, dpo and cvedrl ask for none",
        fix="set data.curriculum.share=0",
        holds=lambda c: not c.data.curriculum.share or c.recipe not in (*OFFLINE, "cvedrl"),
    ),
)

UNTESTED_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="data.untested_path",
        involves=("data.untested_path", "reward.kind", "loop.enabled"),
        rule="problems without tests need a judge that runs none, and no loop: it mines by tests",
        fix="set reward=hybrid and loop.enabled=false",
        holds=lambda c: (
            c.data.untested_path is None or (not c.reward.by_tests and not c.loop.enabled)
        ),
    ),
    Relation(
        path="data.untested_share",
        involves=("data.untested_path", "data.untested_share", "algorithm.prompts_per_step"),
        rule="a step has at least two groups with tests and two without, or none with tests at all",
        fix="set data.untested_share nearer to 0.5 or to 1, or raise algorithm.prompts_per_step",
        holds=lambda c: (
            c.data.untested_path is None
            or 2 <= num_untested(c) <= c.algorithm.prompts_per_step - 2
            or num_untested(c) == c.algorithm.prompts_per_step
        ),
    ),
    Relation(
        path="data.untested_from_step",
        involves=("data.untested_from_step", "data.untested_path"),
        rule="the steps from this one on take the problems of data.untested_path",
        fix="give data.untested_path=FILE, or set data.untested_from_step=0",
        holds=lambda c: not c.data.untested_from_step or c.data.untested_path is not None,
    ),
    Relation(
        path="data.untested_path",
        involves=("data.untested_path", "algorithm.num_refills"),
        rule="refills would change the share of problems without tests",
        fix="set algorithm.num_refills=0",
        holds=lambda c: c.data.untested_path is None or not c.algorithm.num_refills,
    ),
)

UNTESTED_CAUTIONS: tuple[Relation, ...] = (
    Relation(
        path="data.untested_from_step",
        involves=("data.untested_from_step", "algorithm.num_steps"),
        rule="the run ends before it takes a problem without tests",
        fix="raise algorithm.num_steps, or lower data.untested_from_step",
        holds=lambda c: c.data.untested_from_step <= c.algorithm.num_steps,
    ),
)


def problem_files(data: DataConfig) -> dict[str, str]:
    """The files of problems that a run reads, by the keys that name them; the probe's is none."""
    files = {"data.untested_path": data.untested_path}
    if data.kind == "parquet":
        files |= {"data.train_path": data.train_path, "data.eval_path": data.eval_path}
    files |= {f"data.sources.{name}.path": one.path for name, one in (data.sources or {}).items()}
    files |= {f"data.eval_sets.{name}": path for name, path in (data.eval_sets or {}).items()}
    return {key: path for key, path in files.items() if path is not None}
