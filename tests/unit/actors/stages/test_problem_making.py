"""Programs of a problem are run and compared; bounds that contradict each other are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.plan.making import Known, configure_making, read_known
from actors.stages import problem_making
from actors.stages.problem_making import ask_server, make_problems, observe
from conf.commands.make_problems import MakeProblemsArgs, check_bounds, check_writer
from conf.errors import DataError, EngineError, UserError
from conf.schema import Config, RequestConfig, SandboxConfig
from reward.code.normal_form import normalise
from reward.verify.verdict import Verifier
from rl.problems.datasets.requests import mbpp_request
from rl.problems.making.filters import Candidate, Input
from rl.problems.making.recombined import Shares, make_candidates
from rl.problems.minipy import held_out_combinations, make_prompts
from rl.problems.prompts import load_prompts, write_prompts
from rl.types import Ask, Finish, Message, Prompt, PromptGroup
from tests.settings import POLICY, shipped_config
from tests.unit.reward.judges.servers import Answer, Answering, serving
from tests.unit.rl.fakes import make_group

pytestmark = pytest.mark.unit

ARGS = MakeProblemsArgs(
    output="x",
    policy=str(POLICY),
    sandbox=SandboxConfig(),
    writer_request=RequestConfig(tries=1),
)


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


# ---------------------------------------------------------------- written problems

STATEMENT = "Return the number of xs that k divides without a remainder."
WRITTEN = f"Problem: {STATEMENT}\nFunction: f(xs, k)\nInputs:\n" + "\n".join(
    f"f(({n}, {n + 1}), 2)" for n in range(4)
)
GOLD = "def near(xs, k):\n    return [x for x in xs if abs(x - k) < 3]\n"
KNOWN = [
    Prompt(
        id=f"known-{n}",
        messages=(Message("user", mbpp_request(f"Return the {n} nearest of xs.", "assert ...")),),
        tests=json.dumps({"assert": [f"assert near((1, {n}), 2) == [1]"]}),
        meta=json.dumps({"solution": GOLD}),
    )
    for n in range(3)
]
URL = "http://HOST:8000/v1"


def args_of(tmp_path: Path, **changes: object) -> MakeProblemsArgs:
    """Arguments with a file of known problems."""
    path = tmp_path / "known.parquet"
    write_prompts(path, KNOWN)
    given = {"data": str(path), "output": str(tmp_path / "out"), "num": 4, "num_inputs": 4}
    return replace(ARGS, **(given | changes))  # pyright: ignore[reportArgumentType]


def config_of(args: MakeProblemsArgs) -> Config:
    cfg = configure_making(args, Path(args.output))
    return replace(cfg, model=replace(cfg.model, max_prompt_tokens=4096))  # in place of 256


class Rollout:
    """An engine that writes a problem where one is asked for, and otherwise programs."""

    def __init__(self, bodies: Sequence[str], written: Callable[[int], str]) -> None:
        self._bodies = bodies
        self._written = written
        self.asked: list[Ask] = []

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        self.asked += asks
        for index, ask in reversed(list(enumerate(asks))):  # the last is done first
            texts = [self._written(index)]
            if ask.sampling.purpose == "synthetic problems":
                texts = [f"```python\ndef f(xs, k):\n    return {b}\n```" for b in self._bodies]
            group = make_group(ask.prompt, len(texts))
            completions = tuple(
                replace(one, text=text, finish=Finish.LENGTH if text == "cut" else Finish.STOP)
                for one, text in zip(group.completions_G, texts, strict=True)
            )
            yield replace(group, completions_G=completions)


def with_engine(monkeypatch: pytest.MonkeyPatch, rollout: Rollout) -> None:
    """No Ray: the fleet is this engine."""

    @asynccontextmanager
    async def start_fleet(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(rollout=rollout, reward=None)

    @contextmanager
    def session(*_: object) -> Iterator[Callable[..., object]]:
        yield asyncio.run

    monkeypatch.setattr(problem_making, "start_fleet", start_fleet)
    monkeypatch.setattr(problem_making, "session", session)


def card_of(args: MakeProblemsArgs) -> dict[str, Any]:
    return json.loads((Path(args.output) / "card.json").read_text())


def test_the_policy_writes_problems_and_then_solves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [WRITTEN, "What?", "cut", WRITTEN.replace("number", "sum")]
    rollout = Rollout(
        [*["sum(x % k == 0 for x in xs)"] * 5, "len(xs)", "xs + [1]", "0"], lambda i: answers[i]
    )
    with_engine(monkeypatch, rollout)
    args = args_of(tmp_path, max_delta=0.5)
    make_problems(config_of(args), args, read_known(args))
    assert [len(rollout.asked), rollout.asked[0].sampling.group_size] == [4 + 2, 1]
    assert "Return the" in rollout.asked[0].prompt.messages[1].content  # of a parent
    (kept,) = load_prompts(Path(args.output) / "problems.parquet")
    assert STATEMENT in kept.question and (kept.tests, kept.entry_point) == (None, "f")
    meta = json.loads(kept.meta)
    assert meta["agreement"] == 5 and set(meta["parents"]) <= {prompt.id for prompt in KNOWN}
    card = card_of(args)
    assert card["writer"] == args.policy
    assert card["parents"] == 3
    assert card["unreadable"] == {"no_statement": 1, "no_answer": 1}
    assert card["left_out"]["unreadable"] == {"written": 2}
    assert card["left_out"]["duplicate"] == {"written": 1} == card["kept"]


def test_where_nothing_is_kept_the_card_says_why_and_old_rows_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(monkeypatch, Rollout(["0"] * 8, lambda i: "I cannot do that."))
    args = args_of(tmp_path)
    rows = Path(args.output) / "problems.parquet"
    rows.parent.mkdir()
    rows.write_bytes(b"of an earlier command")
    with pytest.raises(UserError, match=r"num: the filters keep none of 4 .*card\.json.* writer"):
        make_problems(config_of(args), args, read_known(args))
    assert not rows.exists()
    assert card_of(args)["unreadable"] == {"no_statement": 4}


def test_held_out_words_are_left_out_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = Rollout(["0"] * 8, lambda i: WRITTEN)
    with_engine(monkeypatch, rollout)
    held_out = tmp_path / "held_out.parquet"
    secret = f"Somebody asks: {STATEMENT} What is it?"
    write_prompts(held_out, [Prompt(id="h", messages=(Message("user", secret),))])
    args = args_of(tmp_path, held_out=str(held_out), ngram=11)
    with pytest.raises(UserError, match="keep none"):
        make_problems(config_of(args), args, read_known(args))
    assert card_of(args)["left_out"]["overlap"] == {"written": 4}
    assert len(rollout.asked) == 4  # statements, and no program


def test_tuples_of_written_inputs_reach_programs_as_tuples_and_texts_their_standard_input() -> None:
    def agreement(bodies: list[str], inputs: tuple[Input, ...], name: str | None) -> int:
        prompt = Prompt(id="p", messages=(Message("user", "?"),), entry_point=name)
        candidate = Candidate(prompt=prompt, kind="written", inputs=inputs)
        group = make_group(prompt, len(bodies))
        texts = tuple(
            replace(one, text=f"```python\n{body}\n```")
            for one, body in zip(group.completions_G, bodies, strict=True)
        )
        with Verifier(timeout_s=2.0) as verifier:
            return observe(candidate, replace(group, completions_G=texts), verifier).agreement

    programs = ["def f(x):\n    return x + (1,)", "def f(x):\n    return (*x, 1)"]
    assert agreement(programs, (((1, 2),), ((),)), "f") == 2
    assert agreement(["print(input())", "print(input() + '!')"] * 2, ("a\n", "b\n"), None) == 2


# ---------------------------------------------------------------- a served writer


def serve(path: str, body: Any) -> Answer:
    """A model that writes well, except where its context is too short or its tokens run out."""
    if body is None:
        return {"data": [{"id": "big"}]}
    asked = " ".join(turn["content"] for turn in body["messages"])
    if "0 nearest" in asked:
        return 400, {"error": "too long"}
    finish = "length" if "1 nearest" in asked else "stop"
    message = {"role": "assistant", "content": f"<think>Hm.</think>\n{WRITTEN}"}
    return {"choices": [{"message": message, "finish_reason": finish}]}


def requests_of(*texts: str) -> list[Prompt]:
    return [Prompt(id=text, messages=(Message("user", text),)) for text in texts]


def test_a_served_model_is_asked_as_chat_and_says_nothing_where_it_gives_no_whole_answer() -> None:
    with serving(serve) as server:
        args = replace(ARGS, writer=f"{server.url}/v1/", writer_model="big", writer_max_tokens=77)
        found = ask_server(args, requests_of("2 nearest", "0 nearest", "1 nearest"))
    assert found == [f"<think>Hm.</think>\n{WRITTEN}", None, None]
    (listed, *asked) = server.asked
    assert listed == ("/v1/models", None)
    assert {path for path, _ in asked} == {"/v1/chat/completions"}
    bodies = [body for _, body in asked]
    assert all((b["model"], b["max_tokens"], b["temperature"]) == ("big", 77, 1.0) for b in bodies)
    assert len({body["seed"] for body in bodies}) == 3
    assert all(
        body["messages"][0]["role"] == "user" and len(body["messages"]) == 1 for body in bodies
    )


@pytest.mark.parametrize(
    ("answering", "error", "said"),
    [
        (lambda path, body: {"data": [{"id": "small"}]}, UserError, "writer_model: .*but small"),
        (lambda path, body: (404, ""), UserError, "writer: .*refuses: 404.*look at writer"),
        (lambda path, body: (401, ""), UserError, r"writer_request\.token_from names"),
        (lambda path, body: (503, ""), UserError, "writer: .*does not list its models: .*503"),
        (
            lambda path, body: serve(path, body) if body is None else (503, ""),
            EngineError,
            r"writer: no answer in 1 tries.*writer_request\.tries or writer_request\.timeout_s",
        ),
        (
            lambda path, body: serve(path, body) if body is None else {"choices": []},
            EngineError,
            "writer: /chat/completions of .* answers without a choice",
        ),
    ],
)
def test_what_a_server_does_not_do_is_said_under_the_keys_of_the_command(
    answering: Answering, error: type[Exception], said: str
) -> None:
    with serving(answering) as server:
        args = replace(ARGS, writer=server.url, writer_model="big")
        with pytest.raises(error, match=said):
            ask_server(args, requests_of("2 nearest"))


def test_a_served_model_writes_before_an_engine_starts_and_the_card_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = Rollout([*["len(xs)"] * 5, "0", "1", "2"], lambda i: "never asked")
    with_engine(monkeypatch, rollout)
    with serving(serve) as server:
        args = args_of(tmp_path, writer=server.url, writer_model="big", num=9, num_concepts=1)
        make_problems(config_of(args), args, read_known(args))
    assert {ask.sampling.purpose for ask in rollout.asked} == {"synthetic problems"}
    card = card_of(args)
    assert card["writer"] == f"big at {server.url}"
    assert card["kept"] == {"written": 1}  # the others say the same
    assert card["unreadable"]["no_answer"] + card["left_out"]["statement"]["written"] == 8


def test_thoughts_are_no_answer_and_a_problem_must_fit_the_solver(tmp_path: Path) -> None:
    def thinks(path: str, body: Any) -> Answer:
        if body is None:
            return {"data": [{"id": "big"}]}
        is_first = "0 nearest" in body["messages"][1]["content"]
        text = f"<think>{WRITTEN}</think>\n" + ("No." if is_first else WRITTEN)
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    with serving(thinks) as server:
        args = args_of(tmp_path, writer=server.url, writer_model="big", num=9, num_concepts=1)
        cfg = config_of(args)
        cfg = replace(cfg, model=replace(cfg.model, max_prompt_tokens=20))
        with pytest.raises(UserError, match="keep none of 9"):
            make_problems(cfg, args, read_known(args))
    unread = card_of(args)["unreadable"]
    assert set(unread) == {"no_statement", "too_long"} and sum(unread.values()) == 9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"writer": "gpt"}, "writer=gpt: is neither policy nor an address"),
        ({"writer": URL, "writer_model": "m", "data": None}, "writer=http.*: needs known problems"),
        ({"writer": URL}, "writer_model=null: is the name of a served model"),
        ({"writer_model": "m"}, "writer_model=m: is the name of a served model, and writer=policy"),
        (
            {"writer_request": RequestConfig(token_from="NO_SUCH_TOKEN")},
            "writer_request.token_from=NO_SUCH_TOKEN: the environment has no such variable",
        ),
    ],
)
def test_a_writer_that_is_none_is_refused(changes: dict[str, object], said: str) -> None:
    check_writer(ARGS)
    check_writer(replace(ARGS, data="known.parquet", writer=URL, writer_model="m"))
    with pytest.raises(UserError, match=said):
        check_writer(replace(ARGS, **({"data": "known.parquet"} | changes)))  # pyright: ignore[reportArgumentType]


def test_known_problems_are_shown_where_they_have_inputs_and_concepts(tmp_path: Path) -> None:
    bare = replace(KNOWN[0], id="no-solution", meta="{}")
    tagged = replace(bare, id="tagged", meta='{"tags": ["dp"]}')
    blind = replace(KNOWN[0], id="no-literals", tests='{"assert": ["assert near(open(1), 2)"]}')
    path = tmp_path / "known.parquet"
    write_prompts(path, [*KNOWN, bare, tagged, blind])
    known = read_known(replace(ARGS, data=str(path)))
    assert [parent.id for parent in known.parents] == ["known-0", "known-1", "known-2", "tagged"]
    assert len(known.questions) == 6
    first, tagged_parent = known.parents[0], known.parents[-1]
    assert first.statement == "Return the 0 nearest of xs."
    assert (first.signature, first.inputs) == ("near(xs, k)", ("near((1, 0), 2)",))
    assert ("call", "abs()") in first.concepts and ("tag", "dp") in tagged_parent.concepts
    assert tagged_parent.signature == "near(a, b)"
    assert read_known(ARGS) == Known(questions=(), held_out=(), parents=())
    write_prompts(path, [bare])
    with pytest.raises(DataError, match=r"data: .*none of its 1 problems can be shown to a writer"):
        read_known(replace(ARGS, data=str(path)))
