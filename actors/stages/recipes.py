"""Recipes and objectives, built from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conf.errors import UserError
from conf.recipes import CureArgs
from conf.schema import AlgorithmConfig, Config
from conf.validate import build
from reward.verify.generated_tests import request_for_test
from rl.advantage import AdvantageConfig
from rl.base.imports import load
from rl.loss import Objective, PolicyObjective
from rl.recipes.cure import Cure
from rl.recipes.recipe import Recipe, Setup
from rl.types import SamplingConfig

Args = Mapping[str, Any]


def policy_objective(algorithm: AlgorithmConfig) -> PolicyObjective:
    """The GRPO objective that the configuration describes."""
    return PolicyObjective(
        clip_eps_low=algorithm.clip_eps_low,
        clip_eps_high=algorithm.clip_eps_high,
        dual_clip=algorithm.dual_clip,
        aggregation=algorithm.loss_aggregation,
        kl_coef=algorithm.kl_coef,
        kl_kind=algorithm.kl_kind,
        entropy_coef=algorithm.entropy_coef,
        tis_cap=algorithm.tis_cap,
    )


def _grpo(setup: Setup, _: Args) -> Recipe:
    return Recipe(setup)


def _cure(setup: Setup, args: Args) -> Recipe:
    return Cure(setup, build(CureArgs, args), request_for_test)


# Objectives of the policy by `algorithm.kind`, and recipes by `recipe`; either may be the path of
# a function from outside this tree that takes the same and returns the same.
OBJECTIVES: dict[str, Callable[[AlgorithmConfig], Objective]] = {"grpo": policy_objective}
RECIPES: dict[str, Callable[[Setup, Args], Recipe]] = {"grpo": _grpo, "cure": _cure}


def make_recipe(cfg: Config, sampling: SamplingConfig) -> Recipe:
    """The recipe of a run that samples programs like this.

    Raises:
        UserError: for a recipe or an objective that cannot be imported, or is none.
    """
    algorithm = cfg.algorithm
    objective = OBJECTIVES.get(algorithm.kind) or load(algorithm.kind, "algorithm.kind")
    setup = Setup(
        sampling=sampling,
        advantage=AdvantageConfig(scale=algorithm.advantage_scale, std_floor=algorithm.std_floor),
        objective=objective(algorithm),
        minibatches_per_step=algorithm.minibatches_per_step,
        keep_zero_advantage=algorithm.kl_coef > 0 or algorithm.entropy_coef > 0,
    )
    make = RECIPES.get(cfg.recipe) or load(cfg.recipe, "recipe")
    recipe = make(setup, cfg.recipe_args or {})
    if not isinstance(recipe, Recipe):
        raise UserError(
            f"recipe: {cfg.recipe} returns a {type(recipe).__name__}; it must return a "
            "rl.recipes.recipe.Recipe"
        )
    return recipe
