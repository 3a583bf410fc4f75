"""Programs of a problem are run and compared; bounds that contradict each other are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.stages.problem_making import observe
from conf.commands.make_problems import MakeProblemsArgs, check_bounds
from conf.errors import UserError
from conf.schema import SandboxConfig
from reward.code.normal_form import normalise
from reward.verify.verdict import Verifier
from rl.problems.making.synthetic import Shares, make_candidates
from rl.problems.minipy import held_out_combinations, make_prompts
from rl.problems.prompts import load_prompts
from tests.settings import shipped_config
from tests.unit.rl.fakes import make_group

pytestmark = pytest.mark.unit

ARGS = MakeProblemsArgs(output="x", sandbox=SandboxConfig())


def test_programs_that_return_the_same_agree_and_those_that_fail_do_not() -> None:
    parents = make_prompts("train", 8, 0)
    (candidate,) = make_candidates(parents, 1, Shares(ambiguous=0, outside=0), 2, 0)
    bodies = ["sum(xs)", "sum([x for x in xs])", "0 + sum(xs)", "len(xs)", "1 / 0", "[]["]
    group = make_group(candidate.prompt, len(bodies))
    completions = tuple(
        replace(one, text=f"```python\ndef f(xs):\n    return {body}\n```")
        for one, body in zip(group.completions_G, bodies, strict=True)
    )
    told = replace(group, completions_G=completions)
    with Verifier(timeout_s=2.0) as verifier:
        seen = observe(candidate, told, verifier)
    assert seen.agreement == 3
    assert seen.delta == pytest.approx(1 - 3 / 6)
    assert seen.program == normalise("def f(numbers):\n    return sum(numbers)")
    assert [code[code.index("return ") + 7 :] for code in seen.agreeing] == bodies[:3]
    assert [code[code.index("return ") + 7 :] for code in seen.others] == ["len(xs)"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_agreement": 9}, "min_agreement=9: of num_samples=8 programs no more can agree"),
        ({"max_delta": 0.875}, "max_delta=0.875: must be .* below 0.875"),
        ({"min_delta": 0.5}, "max_delta=0.4: must be at least min_delta=0.5"),
        ({"ambiguous": 0.7, "outside": 0.4}, "ambiguous=0.7: is more than outside=0.4 leaves"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(
    changes: dict[str, float], said: str
) -> None:
    check_bounds(ARGS)
    with pytest.raises(UserError, match=said):
        check_bounds(replace(ARGS, **changes))  # pyright: ignore[reportArgumentType]


def test_the_shipped_problems_are_such_as_the_command_makes() -> None:
    cfg = shipped_config(["experiment=synthetic"])
    path = Path(cfg.data.untested_path or "")
    assert path.is_absolute()
    shares = Shares(ambiguous=ARGS.ambiguous, outside=ARGS.outside)
    parents = make_prompts("train", ARGS.num_parents, ARGS.seed)
    made = make_candidates(parents, ARGS.num, shares, ARGS.num_inputs, ARGS.seed)
    by_id = {candidate.prompt.id: candidate for candidate in made}
    shipped = load_prompts(path)
    assert len(shipped) >= cfg.algorithm.prompts_per_step
    for prompt in shipped:
        candidate = by_id[prompt.id]
        assert prompt.question == candidate.prompt.question
        assert prompt.tests is None
        assert candidate.combination not in held_out_combinations()
