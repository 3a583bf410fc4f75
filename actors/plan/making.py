"""The making of problems without tests, planned: who samples programs, and who scores them.

Nothing here loads an engine; each check is slower than the one before.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actors.plan.checks.engine_support import EngineNeeds, check_engine, device_of
from actors.plan.evaluation import check_arguments, check_model, choose_layout, configure
from actors.plan.reward_group import default_context, served_beside
from actors.plan.shipped import shipped
from conf.commands.benchmark import DataArgs, EvaluationArgs
from conf.commands.make_problems import MakeProblemsArgs
from conf.schema import Config
from reward.model.files import RewardKeys, check_family, check_reward_model, is_local, read_system

KEYS = RewardKeys("reward_model", "adapter", "rm_max_tokens", "rm_system")


def configure_making(args: MakeProblemsArgs, output: Path) -> Config:
    """The configuration of the policy's engines, and of a reward group where one is asked.

    Raises:
        UserError: for whatever can be seen to be wrong without an engine.
    """
    sampling = _sampling(args, output)
    check_arguments(sampling)
    lengths = check_model(sampling, "policy")
    if args.reward_model is None:
        return configure(sampling, *lengths)
    model = shipped(args.reward_model)
    max_tokens = args.rm_max_tokens or default_context(model)
    system = read_system(args.rm_system, KEYS.system)
    check_reward_model(model, args.adapter, max_tokens, KEYS)
    check_family(args.adapter, system, KEYS)
    placement, engines = choose_layout(sampling)
    if is_local(model):
        check_engine(Path(model), KEYS.model, EngineNeeds("pooling", device_of(placement)))
    spared = 0 if placement == "laptop" else 1  # the GPU of the reward model
    cfg = configure(replace(sampling, engines=max(1, engines - spared)), *lengths)
    return served_beside(cfg, model, args.adapter, max_tokens, system)


def _sampling(args: MakeProblemsArgs, output: Path) -> EvaluationArgs:
    return EvaluationArgs(
        model=shipped(args.policy),
        benchmark="minipy",
        output=str(output / "card.json"),
        num_samples=args.num_samples,
        temperature=args.temperature,
        top_p=1.0,
        seed=args.seed,
        data=DataArgs(),
        sandbox=args.sandbox,
    )
