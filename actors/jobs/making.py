"""A tiny policy of several tasks, made from nothing by supervised training on minipy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from actors.cluster.session import session
from actors.stages.training import warm_start
from conf.commands.make_policy import MakePolicyArgs
from conf.errors import UserError
from conf.schema import Config
from reward.verify.generated_tests import request_for_test
from reward.verify.lineups import AnswerForm, request_for_verdict
from reward.verify.suites import request_for_suite
from reward.verify.traces import request_for_trace
from rl.base.console import Console
from rl.base.files import replace_json
from rl.problems import branchy, minipy
from rl.types import Prompt

_MOST_TESTS = 4  # of a suite
_LINEUPS = (2, 3)  # programs of a lineup: a context of 512 tokens has no room for five


def make_policy(cfg: Config, args: MakePolicyArgs) -> None:
    """Train it into `args.output`, with a record of how beside it.

    Raises:
        UserError: where something is there already.
    """
    target = Path(args.output)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"output: {target} is not empty; give another directory")
    target.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.stage("policy", f"{args.num_steps} supervised steps on {args.num_answers} answers")
    answers = list(answers_of(args))
    with session(cfg.ray, "make-policy") as run:
        figures = run(warm_start(cfg, answers, target, console))
    settings = {
        "level": args.level,
        "tasks": args.tasks,
        "answers": args.num_answers,
        "corrupted": args.corrupted,
        "steps": args.num_steps,
        "batch": args.batch,
    }
    replace_json(target / "stage.json", {"figures": figures, "settings": settings}, indent=1)
    console.say(f"policy  {target}")


def answers_of(args: MakePolicyArgs) -> Iterator[tuple[str, str]]:
    """(question, answer) pairs of all tasks, in turns."""
    each = -(-args.num_answers // len(args.tasks))
    code = branchy if args.level == "branchy" else minipy
    made = {
        "code": lambda: code.warm_start_answers(each, args.corrupted, args.seed),
        "suite": lambda: _suites(each, args.seed),
        "test": lambda: _tests(each, args.seed),
        "trace": lambda: _traces(each, args.seed),
        "verdict": lambda: _verdicts(each, args.seed, "steps"),
        "verdict_letter": lambda: _verdicts(each, args.seed, "letter"),
    }
    for answers in zip(*(made[task]() for task in args.tasks), strict=True):
        yield from answers


def _tests(num: int, seed: int) -> Iterator[tuple[str, str]]:
    for prompt, test in minipy.warm_start_tests(num, seed, minipy.NUM_WORKED_OUT):
        yield request_for_test(prompt).question, minipy.fenced(test)


def _traces(num: int, seed: int) -> Iterator[tuple[str, str]]:
    for trace, answer in minipy.warm_start_traces(num, seed, minipy.NUM_WORKED_OUT):
        yield request_for_trace(trace, "trace").question, answer


def _suites(num: int, seed: int) -> Iterator[tuple[str, str]]:
    problem = Prompt(id="suite", messages=(), entry_point=minipy.ENTRY_POINT)
    for code, suite in branchy.warm_start_suites(num, _MOST_TESTS, seed):
        yield request_for_suite(problem, code, _MOST_TESTS).question, suite


def _verdicts(num: int, seed: int, form: AnswerForm) -> Iterator[tuple[str, str]]:
    """The step is the right program's line: a choice that is made where it is written."""
    for prompt, lineup, line in minipy.warm_start_lineups(num, seed, _LINEUPS):
        asked = request_for_verdict(prompt, lineup, prompt.id, form=form)
        answer = f"best = {lineup.right}"
        yield asked.question, f"{line}\n{answer}" if form == "steps" else answer
