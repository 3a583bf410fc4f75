"""The problems of a run: made by minipy, or read from canonical parquet files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from conf.errors import DataError, UserError
from conf.imports import load_function
from conf.rules.problems import is_staged, num_untested, source_counts
from conf.schema import Config, DataConfig, ProbeConfig
from rl.problems.curriculum import CurriculumSampler
from rl.problems.difficulty import ranks_of, within
from rl.problems.levels import make_prompts
from rl.problems.mixing import MixedSampler, StagedSampler, by_source, by_tests
from rl.problems.prompts import PromptSampler, load_prompts
from rl.run.probe import MIN_PROBLEMS, Problems, carve, choose, minipy_probe
from rl.types import Message, Prompt

_FORM = "it must take a DataConfig and a seed, and return problems of training and held-out ones"


def load_problems(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out problems of a run with this seed; those of a recipe may be none.

    `data.kind` may be the path of a function from outside this tree that returns them.
    """
    train, held_out = _main(data, seed)
    for source in load_sources(data).values():
        train = [*train, *source]
    if data.untested_path is not None:
        train = [*train, *load_prompts(data.untested_path, data.max_bad_rows)]
    return within(train, data.difficulty), held_out


def load_sources(data: DataConfig) -> dict[str, list[Prompt]]:
    """Training problems by the name of their source; none where there is one file of them.

    Raises:
        DataError: where two sources have a problem with the same id.
    """
    found = {
        name: load_prompts(source.path, data.max_bad_rows)
        for name, source in (data.sources or {}).items()
    }
    first: dict[str, str] = {}
    for name, prompts in found.items():
        for prompt in prompts:
            if (other := first.setdefault(prompt.id, name)) != name:
                raise DataError(
                    f"data.sources.{name}.path: problem {prompt.id} is in {other} too, and a "
                    "problem is sampled by its id; drop it from one of them"
                )
    return found


def load_eval_sets(data: DataConfig) -> dict[str, list[Prompt]]:
    """Held-out problems of `data.eval_sets`, by name."""
    return {
        name: load_prompts(path, data.max_bad_rows) for name, path in (data.eval_sets or {}).items()
    }


def source_of(data: DataConfig) -> dict[str, str]:
    """The source of each training problem, by its id."""
    return {prompt.id: name for name, prompts in load_sources(data).items() for prompt in prompts}


def make_sampler(cfg: Config, train: Sequence[Prompt], sources: Mapping[str, str]) -> PromptSampler:
    """What chooses the problems of each step; `sources` are those of `source_of`.

    Raises:
        DataError: where a part has fewer problems than a step takes of it.
    """
    ranks = ranks_of(train, cfg.data.difficulty)
    curriculum = cfg.data.curriculum

    def of(prompts: Sequence[Prompt]) -> PromptSampler:
        if curriculum.share:
            return CurriculumSampler(prompts, cfg.seed, ranks, curriculum)
        return PromptSampler(prompts, cfg.seed, ranks)

    if cfg.data.sources:
        shares = by_source(source_counts(cfg), sources)
        return MixedSampler(train, cfg.seed, shares, "data.sources", of)
    if cfg.data.untested_path is not None:
        return _by_tests(cfg, train, of)
    return of(train)


def _by_tests(
    cfg: Config, train: Sequence[Prompt], of: Callable[[Sequence[Prompt]], PromptSampler]
) -> PromptSampler:
    num, key = cfg.algorithm.prompts_per_step, "data.untested_share"
    mixed = MixedSampler(train, cfg.seed, by_tests(num, num_untested(cfg)), key, of)
    if not is_staged(cfg):
        return mixed
    key = "data.untested_from_step"
    first = MixedSampler(train, cfg.seed, by_tests(num, 0), key, of)
    return StagedSampler(train, cfg.seed, (first, mixed), cfg.data.untested_from_step)


def probe_problems(
    probe: ProbeConfig,
    data: DataConfig,
    prompts_per_step: int,
    train: Problems,
    held_out: Sequence[Prompt],
) -> tuple[Problems, Problems]:
    """(training problems, problems of the probe); the latter is empty when there is no probe."""
    if not probe.every:
        return train, []
    if data.kind != "minipy" and probe.path is None:
        return carve(train, held_out, probe.num_prompts, prompts_per_step)
    if probe.path is not None:
        found = choose(load_prompts(probe.path, data.max_bad_rows), probe.num_prompts)
    else:
        found = minipy_probe(data.level, probe.num_prompts, held_out)
    return train, found if len(found) >= MIN_PROBLEMS else []


def repeated(prompts: Mapping[str, Sequence[Prompt]]) -> list[str]:
    """What to tell people of problems that ask the same under other ids; `prompts` by their key."""
    found: list[str] = []
    for key, some in prompts.items():
        first: dict[tuple[Message, ...], Prompt] = {}
        again = [p for p in some if first.setdefault(p.messages, p) is not p]
        if again:
            found.append(
                f"{key}: {len(again)} of {len(some)} problems ask what an earlier one asks, the "
                f"first is {again[0].id} (as {first[again[0].messages].id}); they count twice"
            )
    return found


def trained_on(prompts: Mapping[str, Sequence[Prompt]]) -> list[str]:
    """Warnings of held-out problems that are trained on as well; `prompts` by their key."""
    asked = {p.messages: (key, p) for key, some in prompts.items() if _trains(key) for p in some}
    found: list[str] = []
    for key, some in prompts.items():
        shared = [] if _trains(key) else [p for p in some if p.messages in asked]
        if shared:
            other, same = asked[shared[0].messages]
            found.append(
                f"{key}: {len(shared)} of {len(some)} problems are trained on as well, the first "
                f"is {shared[0].id} ({same.id} of {other}): figures on them say nothing of new "
                "problems; drop them from one of the two files"
            )
    return found


def _trains(key: str) -> bool:
    return key in ("data.train_path", "data.untested_path") or key.startswith("data.sources.")


def _main(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    if data.kind == "minipy":
        train = make_prompts(data.level, "train", data.num_train, seed)
        # The test split is that of seed 0 for every run, so that figures can be compared.
        return train, make_prompts(data.level, "eval", data.num_eval, 0)
    if data.kind != "parquet":
        return _made(data, seed)
    return (
        load_prompts(data.train_path, data.max_bad_rows) if data.train_path else [],
        load_prompts(data.eval_path or "", data.max_bad_rows),
    )


def _made(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """What a function from outside this tree returns. Raises UserError where it is not problems."""
    try:
        train, held_out = map(list, load_function(data.kind, "data.kind", data.args)(data, seed))
    except (TypeError, ValueError) as error:
        raise UserError(f"data.kind: {data.kind}: {_FORM} ({error})") from error
    if not all(isinstance(prompt, Prompt) for prompt in [*train, *held_out]):
        raise UserError(f"data.kind: {data.kind}: {_FORM}")
    if not train:
        raise UserError(f"data.kind: {data.kind} returns no training problem; {_FORM}")
    return train, held_out
