"""GPU hours of the paper's recipe, stage by stage, from the predicted steps of its two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actors.plan.cost.case import Case

NUM_PAIRS = 51_107  # of the authors
NUM_HELD_OUT = 1_000  # problems of an evaluation: assumed
AVG_SAMPLES = 8  # avg@8
BEST_OF = 16
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage and what it takes of GPUs."""

    name: str
    gpu_hours: float
    basis: str


def recipe_stages(rollouts: Case, rl: Case, num_steps: int) -> Sequence[Stage]:
    """The stages of docs/recipe.md; `rollouts` is the run whose programs become pairs."""
    evaluation = _sampling_hours(rl, NUM_HELD_OUT * AVG_SAMPLES)
    best_of = _sampling_hours(rl, NUM_HELD_OUT * BEST_OF)
    scored = NUM_HELD_OUT * BEST_OF / rl.rates.scores_per_s / _HOUR_S
    held_out = f"{NUM_HELD_OUT:,} problems"
    return (
        Stage(name="data", gpu_hours=0.0, basis="CPUs only"),
        Stage(
            name="rollouts for pairs",
            gpu_hours=_run_hours(rollouts, num_steps),
            basis=_run_basis(rollouts, num_steps),
        ),
        Stage(name="pairs", gpu_hours=0.0, basis="CPUs only: programs are run"),
        Stage(name="reward model", gpu_hours=_pair_hours(rl), basis=f"{NUM_PAIRS:,} pairs, once"),
        Stage(name="RL", gpu_hours=_run_hours(rl, num_steps), basis=_run_basis(rl, num_steps)),
        Stage(name="evaluation", gpu_hours=evaluation, basis=f"{held_out} x {AVG_SAMPLES}"),
        Stage(
            name="best-of-N", gpu_hours=best_of + scored, basis=f"{held_out} x {BEST_OF}, scored"
        ),
    )


def _run_hours(case: Case, num_steps: int) -> float:
    return num_steps * case.cost().step_s * case.devices / _HOUR_S


def _run_basis(case: Case, num_steps: int) -> str:
    return f"{num_steps} steps of {case.cost().step_s:,.0f} s on {case.devices} GPUs"


def _pair_hours(case: Case) -> float:
    """Both programs of each pair behind its problem; a rank learns as fast as one of the policy."""
    lengths = case.work.lengths
    tokens = 2 * NUM_PAIRS * (lengths.prompt_tokens + lengths.code_tokens)
    return tokens / case.rates.update_tokens_per_s / _HOUR_S


def _sampling_hours(case: Case, completions: int) -> float:
    """Completions of full engines: an engine holds as many as it has slots."""
    a_token_s = 1 / case.rates.rollout_tokens_per_s + case.rates.decode_step_s / case.layout.slots
    return completions * case.work.lengths.answer_tokens * a_token_s / _HOUR_S
