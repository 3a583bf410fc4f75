"""The making of problems without tests, planned: who samples programs, and who scores them.

Nothing here loads an engine; each check is slower than the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from actors.plan.checks.engine_support import EngineNeeds, check_engine, device_of
from actors.plan.evaluation import check_arguments, check_model, choose_layout, configure
from actors.plan.reward_group import default_context, served_beside
from actors.plan.shipped import shipped
from conf.commands.benchmark import DataArgs, EvaluationArgs
from conf.commands.make_problems import MakeProblemsArgs
from conf.errors import DataError
from conf.schema import Config
from reward.model.files import RewardKeys, check_family, check_reward_model, is_local, read_system
from reward.verify.generated_tests import CallTest, GeneratedTest
from reward.verify.matrix import inputs_of
from rl.problems.datasets.requests import bare_statement
from rl.problems.making.code_concepts import concepts_of
from rl.problems.making.writing import MAX_INPUT_CHARS, Parent, is_statement, signature_of
from rl.problems.prompts import load_prompts, meta_fields
from rl.types import Prompt

_READ_INPUTS = 8  # of a known problem
KEYS = RewardKeys("reward_model", "adapter", "rm_max_tokens", "rm_system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the given files hold."""

    questions: tuple[str, ...]  # of known problems
    held_out: tuple[str, ...]  # questions that must not be made
    parents: tuple[Parent, ...]  # the known problems that a writer can be shown; () without data


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


def read_known(args: MakeProblemsArgs) -> Known:
    """Known and held-out problems of the files that the arguments name.

    Raises:
        DataError: for a file that is none, or without a problem that a writer can be shown.
    """
    held_out = [] if args.held_out is None else load_prompts(args.held_out)
    known = [] if args.data is None else load_prompts(args.data)
    parents = tuple(parent for prompt in known if (parent := _parent(prompt)) is not None)
    if known and not parents:
        raise DataError(
            f"data: {args.data}: none of its {len(known)} problems can be shown to a writer; one "
            "needs tests whose inputs are literals, and in its meta a `solution` in Python, or "
            "`tags`"
        )
    return Known(
        questions=tuple(prompt.question for prompt in known),
        held_out=tuple(prompt.question for prompt in held_out),
        parents=parents,
    )


def _parent(prompt: Prompt) -> Parent | None:
    meta = meta_fields(prompt.meta)
    statement, concepts = bare_statement(prompt.question).strip(), concepts_of(meta)
    tests = inputs_of(prompt, _READ_INPUTS)
    inputs = tuple(text for test in tests if len(text := _written(test)) <= MAX_INPUT_CHARS)
    if not (concepts and inputs and is_statement(statement)):
        return None
    first = tests[0]
    is_call = isinstance(first, CallTest)
    signature = signature_of(meta.get("solution"), first.name, len(first.args)) if is_call else None
    return Parent(
        id=prompt.id, statement=statement, signature=signature, inputs=inputs, concepts=concepts
    )


def _written(test: GeneratedTest) -> str:
    """An input as a writer is asked to write it."""
    if isinstance(test, CallTest):
        return f"{test.name}({', '.join(map(repr, test.args))})"
    return repr(test.input)


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
        max_tokens=args.max_tokens,
        max_prompt_tokens=args.max_prompt_tokens,
        sandbox=args.sandbox,
    )
