"""Rules between a recipe, its arguments, and what judges its answers."""

from __future__ import annotations

import re

from conf.recipes import CodrlPlusArgs, SolVerArgs, StepCoderArgs
from conf.relation import Relation
from conf.schema import BY_TESTS, Config


def _are_judged(config: Config) -> bool:
    """Whether programs are run, or a judge from outside is trusted to."""
    reward = config.reward
    return reward.by_tests or reward.kind in BY_TESTS or ":" in reward.kind


def _has_verdicts(config: Config) -> bool:
    given = bool((config.recipe_args or {}).get("programs"))
    return _are_judged(config) or given or config.recipe != "aletheia"


def _has_rates(config: Config) -> bool:
    """Whether all tests of a wrong program are run where its distance to the right one counts."""
    args = config.recipe_args or {}
    if config.recipe != "aletheia" or args.get("reward") != "distance" or args.get("programs"):
        return True
    running = [one for one in config.reward.judges.values() if one.kind in BY_TESTS]
    return not running or any(o.execution == "pass_rate" or not o.early_stop for o in running)


def _moves_starts(config: Config) -> bool:
    curriculum = (config.recipe_args or {}).get("curriculum", StepCoderArgs.curriculum)
    return _are_judged(config) or config.recipe != "stepcoder" or curriculum != "reverse"


def _has_step_end(config: Config) -> bool:
    given = (config.recipe_args or {}).get("step_end")
    if config.recipe != "crpe" or not isinstance(given, str):  # elsewhere checked, or the default
        return True
    try:
        re.compile(given)
    except re.error:
        return False
    return True


def _of_sol_ver(config: Config, name: str) -> str:
    """An argument of recipe=sol_ver; "" in every other run."""
    if config.recipe != "sol_ver":
        return ""
    return str((config.recipe_args or {}).get(name, getattr(SolVerArgs, name)))


def _can_shuffle(config: Config) -> bool:
    args = config.recipe_args or {}
    shuffled = config.recipe == "codrlplus" and args.get("answers") == "shuffled"
    return not shuffled or args.get("ask", CodrlPlusArgs.ask) == "output"


RECIPE_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="recipe",
        involves=("recipe", "recipe_args", "reward.kind"),
        rule="recipe=aletheia asks about programs with a verdict",
        fix="give reward=execution, or recipe_args.programs=FILE",
        holds=_has_verdicts,
    ),
    Relation(
        path="recipe",
        involves=("recipe", "reward.kind"),
        rule="recipe=codrlplus asks what programs do that tests have found wrong",
        fix="give reward=execution, or reward=hybrid where some problems have tests",
        holds=lambda c: c.recipe != "codrlplus" or _are_judged(c),
    ),
    Relation(
        path="recipe_args",
        involves=("recipe", "recipe_args"),
        rule="recipe_args.answers=shuffled exchanges outputs; variables have names of their own",
        fix="give recipe_args.ask=output, or recipe_args.answers=seen",
        holds=_can_shuffle,
    ),
    Relation(
        path="reward.execution",
        involves=("recipe", "recipe_args", "reward.execution", "reward.early_stop"),
        rule="recipe_args.reward=distance ranks wrong programs by the tests that they pass, and "
        "these stop at the first that fails",
        fix="set reward.execution=pass_rate, or reward.early_stop=false",
        holds=_has_rates,
    ),
    Relation(
        path="recipe_args",
        involves=("recipe", "recipe_args", "reward.kind"),
        rule="recipe_args.curriculum=reverse moves a start when tests call programs right",
        fix="give reward=execution, or recipe_args.curriculum=fixed or none",
        holds=_moves_starts,
    ),
    Relation(
        path="recipe",
        involves=("recipe", "reward.kind"),
        rule="recipe=crpe learns from programs that tests call right and wrong",
        fix="give reward=execution",
        holds=lambda c: c.recipe != "crpe" or c.reward.kind == "execution",
    ),
    Relation(
        path="recipe_args",
        involves=("recipe", "recipe_args"),
        rule="with recipe=crpe, recipe_args.step_end is a regular expression",
        fix=r"give such as recipe_args.step_end='(?=\n)'",
        holds=_has_step_end,
    ),
    Relation(
        path="recipe_args",
        involves=("recipe", "recipe_args", "reward.kind"),
        rule="recipe_args.filter=gold accepts what the problems' own tests call right",
        fix="give reward=execution, or recipe_args.filter=self or none",
        holds=lambda c: _of_sol_ver(c, "filter") != "gold" or c.reward.kind == "execution",
    ),
    Relation(
        path="recipe_args",
        involves=("recipe", "recipe_args"),
        rule="recipe_args.filter=none rejects nothing, so that there is no pair to prefer",
        fix="give recipe_args.learn=sft, or recipe_args.filter=self or gold",
        holds=lambda c: _of_sol_ver(c, "filter") != "none" or _of_sol_ver(c, "learn") == "sft",
    ),
)
