"""Recipes and objectives, built from the configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from actors.plan.examples import PolicyTexts, load_examples
from conf.errors import UserError, in_one_line
from conf.imports import load_function
from conf.recipes import (
    ActorCriticArgs,
    AletheiaArgs,
    CodrlPlusArgs,
    CrpeArgs,
    CureArgs,
    CvedrlArgs,
    DpoArgs,
    SftArgs,
    SolVerArgs,
    StepCoderArgs,
)
from conf.schema import AlgorithmConfig, Config, RewardConfig
from conf.validate import ConfigError, build
from reward.code.normal_form import normalise
from reward.judges.summed import MEASURES
from reward.verify.generated_tests import read_test, request_for_test
from reward.verify.lineups import request_for_verdict
from reward.verify.matrix import is_right_test
from reward.verify.suites import request_for_suite
from reward.verify.traces import request_for_trace
from rl.advantage import AdvantageConfig
from rl.base.files import lack_of
from rl.lessons.lineups import Known, known_of
from rl.lessons.truncated import TruncationConfig
from rl.loss import Objective, PolicyObjective
from rl.recipes.actor_critic import ActorCritic
from rl.recipes.aletheia import Aletheia
from rl.recipes.codrlplus import CodrlPlus
from rl.recipes.crpe import Crpe
from rl.recipes.cure import Cure
from rl.recipes.cvedrl import Cvedrl
from rl.recipes.given import Dpo, Sft
from rl.recipes.recipe import Recipe, Setup
from rl.recipes.sol_ver import SolVer
from rl.recipes.stepcoder import StepCoder
from rl.run.rollouts import read_rollouts
from rl.types import Prompt, SamplingConfig, Score, Task

Args = Mapping[str, Any]


def policy_objective(cfg: Config) -> PolicyObjective:
    """The policy gradient that the configuration describes."""
    algorithm = cfg.algorithm
    prompts = algorithm.prompts_per_step // algorithm.minibatches_per_step
    return PolicyObjective(
        surrogate=algorithm.surrogate,
        ratio_level=algorithm.ratio_level,
        clip_eps_low=algorithm.clip_eps_low,
        clip_eps_high=algorithm.clip_eps_high,
        dual_clip=algorithm.dual_clip,
        sapo_tau_pos=algorithm.sapo_tau_pos,
        sapo_tau_neg=algorithm.sapo_tau_neg,
        aggregation=algorithm.loss_aggregation,
        constant_tokens=prompts * algorithm.group_size * cfg.model.max_completion_tokens,
        kl_coef=algorithm.kl_coef,
        kl_kind=algorithm.kl_kind,
        kl_gradient=algorithm.kl_gradient,
        entropy_coef=algorithm.entropy_coef,
        tis_cap=algorithm.tis_cap,
        tis_level=algorithm.tis_level,
        mismatch_bound=algorithm.mismatch_bound,
        mismatch_level=algorithm.mismatch_level,
    )


def _grpo(setup: Setup, _: Args) -> Recipe:
    return Recipe(setup)


def _cure(setup: Setup, args: Args) -> Recipe:
    return Cure(setup, build(CureArgs, args), request_for_test)


def _codrlplus(setup: Setup, args: Args) -> Recipe:
    return CodrlPlus(setup, build(CodrlPlusArgs, args), request_for_trace)


def _sft(setup: Setup, args: Args) -> Recipe:
    given = build(SftArgs, args)
    return Sft(setup, load_examples(given.data, "answers", setup.encode), given.batch)


def _dpo(setup: Setup, args: Args) -> Recipe:
    given = build(DpoArgs, args)
    return Dpo(setup, load_examples(given.data, "pairs", setup.encode), given.batch, given.beta)


def _sol_ver(setup: Setup, args: Args) -> Recipe:
    return SolVer(setup, build(SolVerArgs, args), request_for_test, _is_right)


def _is_right(problem: Prompt, text: str) -> bool | None:
    """Whether a test is right, by an exact oracle; None where there is none."""
    test = read_test(text, problem)
    return None if test is None else is_right_test(problem, test)


def _crpe(setup: Setup, args: Args) -> Recipe:
    return Crpe(setup, build(CrpeArgs, args))


def _stepcoder(setup: Setup, args: Args) -> Recipe:
    return StepCoder(setup, build(StepCoderArgs, args))


def _cvedrl(setup: Setup, args: Args) -> Recipe:
    return Cvedrl(setup, build(CvedrlArgs, args), request_for_suite)


def _aletheia(setup: Setup, args: Args) -> Recipe:
    made = build(AletheiaArgs, args)
    request = partial(request_for_verdict, form=made.answer)
    return Aletheia(setup, made, request, _programs_of(made.programs) if made.programs else {})


def _actor_critic(setup: Setup, args: Args) -> Recipe:
    return ActorCritic(setup, build(ActorCriticArgs, args), normalise)


def _programs_of(file: str) -> dict[str, list[Known]]:
    """The judged programs of a rollout file, by the question of their problem."""
    if (lack := lack_of(file)) is not None:
        raise UserError(f"recipe_args.programs: {file} {lack}; give a rollout file of a run")
    judged: dict[str, list[tuple[str, Score]]] = defaultdict(list)
    for row in read_rollouts(Path(file)):
        if row.task == Task.CODE:
            score = Score(
                value=row.score,
                verdict=row.verdict,
                num_passed=row.num_passed,
                num_tests=row.num_tests,
            )
            judged[row.question].append((row.code, score))
    known = {question: found for question, own in judged.items() if (found := known_of(own))}
    if not known:
        raise UserError(
            f"recipe_args.programs: {file} holds no program with a verdict; give a rollout file of "
            "a run with reward=execution, or of an evaluation"
        )
    return known


# Objectives of the policy by `algorithm.kind`, and recipes by `recipe`; either may be the path of
# a function from outside this tree that takes the same and returns the same.
OBJECTIVES: dict[str, Callable[[Config], Objective]] = {"grpo": policy_objective}
RECIPES: dict[str, Callable[[Setup, Args], Recipe]] = {
    "grpo": _grpo,
    "cure": _cure,
    "codrlplus": _codrlplus,
    "sft": _sft,
    "dpo": _dpo,
    "sol_ver": _sol_ver,
    "crpe": _crpe,
    "stepcoder": _stepcoder,
    "cvedrl": _cvedrl,
    "aletheia": _aletheia,
    "actor_critic": _actor_critic,
}


def labels_of(recipe: Recipe, reward: RewardConfig) -> str:
    """What a run learns from, in the words that console and report show."""
    if recipe.labels:
        return recipe.labels
    of_judge = {"rm": "rm", "remote": "rm", "execution": "gold_tests"}
    of_judge |= {"hybrid": "gold_tests, rm", "generative": "a served language model"}
    kinds = [one.kind for one in reward.judges.values() if one.kind not in MEASURES]
    found = dict.fromkeys(of_judge.get(kind, f"those of {kind}") for kind in kinds)
    return ", ".join(found) or "none"


def num_updates(algorithm: AlgorithmConfig, recipe: Recipe) -> int:
    """Optimizer steps of a run: what the schedule of the learning rate is laid out for."""
    return algorithm.num_steps * recipe.max_updates * algorithm.minibatches_per_step


def check_asks(recipe: Recipe, problems: Sequence[Prompt], held_out: Sequence[Prompt]) -> None:
    """Refuse problems about which the recipe would ask in more tokens than a prompt may have.

    Raises:
        UserError: with the first of them, and how many there are.
    """
    asks = [*recipe.ask(1, problems, recipe.start()), *recipe.exam(held_out, recipe.setup.sampling)]
    # Others were checked.
    made = [ask for ask in asks if ask.prompt is not ask.problem or ask.prefix]
    long = [ask.prompt.id for ask in made if not recipe.setup.fits(ask.prompt, ask.prefix)]
    if long:
        raise UserError(
            f"model.max_prompt_tokens: {len(long)} of {len(made)} prompts that the recipe makes "
            f"are longer, the first is {long[0]}; raise the limit, or drop these problems"
        )


def _objective(cfg: Config) -> Objective:
    """The objective of the run; raises UserError for what is none."""
    kind = cfg.algorithm.kind
    made: Any = (OBJECTIVES.get(kind) or load_function(kind, "algorithm.kind", cfg.algorithm.args))(
        cfg
    )
    if not callable(made):
        raise UserError(
            f"algorithm.kind: {kind} returns a {type(made).__name__}; it must return an objective "
            "(rl.loss.Objective), which is called with the outputs of a microbatch"
        )
    return cast("Objective", made)


def make_recipe(cfg: Config, sampling: SamplingConfig, key: str = "recipe") -> Recipe:
    """The recipe of a run that samples programs like this; `key` is what a command calls it.

    Raises:
        UserError: for a recipe or an objective that cannot be imported, or is none, and for
            arguments that the recipe does not take.
    """
    algorithm = cfg.algorithm
    texts = PolicyTexts(cfg.model)
    setup = Setup(
        sampling=sampling,
        advantage=AdvantageConfig(
            baseline=algorithm.advantage_baseline,
            scale=algorithm.advantage_scale,
            std_floor=algorithm.std_floor,
            apart=cfg.reward.kind == "sum" and cfg.reward.combine == "normalized",
        ),
        objective=_objective(cfg),
        minibatches_per_step=algorithm.minibatches_per_step,
        keep_zero_advantage=algorithm.kl_coef > 0 or algorithm.entropy_coef > 0,
        truncation=TruncationConfig(
            kind=algorithm.truncated,
            max_tokens=sampling.max_tokens,
            cache_tokens=algorithm.truncated_cache_tokens or 0,
            penalty=algorithm.truncated_penalty,
        ),
        fits=texts.fits,
        encode=texts.encode,
        ends=texts.ends,
    )
    args = cfg.recipe_args or {}
    make: Callable[[Setup], Any]
    if cfg.recipe in RECIPES:
        make = lambda given: RECIPES[cfg.recipe](given, args)  # noqa: E731
    else:
        make = load_function(cfg.recipe, key, args, "recipe")
    try:
        recipe = make(setup)
    except ConfigError as error:
        raise ConfigError(error.below("recipe_args")) from error
    except (TypeError, LookupError) as error:
        raise UserError(
            f"{key}: {cfg.recipe} cannot be called with a Setup and arguments "
            f"({in_one_line(error)})"
        ) from error
    if not isinstance(recipe, Recipe):
        raise UserError(
            f"{key}: {cfg.recipe} returns a {type(recipe).__name__}; it must return a "
            "rl.recipes.recipe.Recipe"
        )
    return recipe
