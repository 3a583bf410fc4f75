"""A served language model as the judge: what it reads, and what of its answers counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import EngineError, UserError
from conf.schema import RewardConfig
from reward.code.extract import ExtractConfig
from reward.judges.generative import share_of_score, share_of_yes, shares_of_choices
from reward.judges.judge import Judged
from reward.judges.scorers import make_scorer
from reward.judges.served import ServedJudge
from rl.metrics import batch_metrics
from rl.types import JudgedGroup, JudgeKind, Message, Prompt
from tests.settings import run_config
from tests.unit.reward.judges.servers import Answering, serving
from tests.unit.rl.fakes import make_group

pytestmark = pytest.mark.unit

PROBLEM = Prompt(id="p", messages=(Message("user", "Add {code}."),))
GOOD, BAD, ODD = (f"```python\nx = '{word}'\n```" for word in ("good", "bad", "odd"))
TEXTS = (GOOD, BAD, "no code", ODD, GOOD)


def config(url: str, *overrides: str) -> RewardConfig:
    given = ["reward=generative", f"reward.url=[{url}/v1]", "reward.generative.model=judge"]
    return run_config([*given, "reward.request.tries=1", "probe.every=0", *overrides]).reward


def judged_by(answering: Answering, *overrides: str) -> tuple[Judged, list[tuple[str, Any]]]:
    with serving(answering) as server:
        cfg = config(server.url, *overrides)
        scorer = make_scorer(cfg)
        judged = ServedJudge(scorer, ExtractConfig(), cfg.shaping).judge(PROBLEM, TEXTS)
    return judged, server.asked


def chat(
    text: str, logprobs: dict[str, float] | None = None, finish: str = "stop"
) -> dict[str, Any]:
    listed = [{"token": t, "logprob": v} for t, v in (logprobs or {}).items()]
    content = [{"token": "x", "top_logprobs": listed}]
    choice = {"message": {"content": text}, "logprobs": {"content": content}}
    return {"choices": [choice | {"finish_reason": finish}]}


def yes_or_no(path: str, body: Any) -> Any:
    text = body["messages"][0]["content"]
    if "odd" in text:
        return chat("The", {"The": -0.1, "It": -3.0})
    return chat(
        "", {"Yes": math.log(0.6), " no": math.log(0.2)} if "good" in text else {"No": -0.1}
    )


def test_yes_and_no_are_read_in_the_probabilities_of_the_first_token():
    judged, asked = judged_by(yes_or_no)
    assert [path for path, _ in asked] == ["/v1/chat/completions"] * 3  # each program once
    body = asked[0][1]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 1, 0.0)
    assert body["logprobs"] is True and body["top_logprobs"] == 20
    assert body["messages"][0]["content"].startswith("Add {code}.\n\nThis program is given:")
    values = [score.value for score in judged.scores_G]
    assert values[0] == values[4] == pytest.approx(0.75)
    # No is all that is listed, so that Yes has at most what is left.
    assert values[1] == pytest.approx(1 - math.exp(-0.1))
    assert values[2:4] == [None, None]
    assert judged.judge is JudgeKind.GENERATIVE


def test_an_answer_that_cannot_be_read_earns_the_mean_of_its_group_and_is_counted():
    judged, _ = judged_by(yes_or_no)
    bad = 1 - math.exp(-0.1)
    mean = (2 * 0.75 + bad) / 3
    assert judged.rewards_G.tolist() == pytest.approx([0.75, bad, bad - 1, mean, 0.75])
    group = JudgedGroup(
        group=make_group(PROBLEM, len(TEXTS)),
        extractions_G=judged.extractions_G,
        scores_G=judged.scores_G,
        rewards_G=judged.rewards_G,
        judge=judged.judge,
        actor="reward-0",
        scored_s=0.0,
    )
    metrics = batch_metrics([group])
    assert metrics["reward/unread_rate"] == 0.25
    assert metrics["judge/score_mean"] == pytest.approx(mean)
    assert "rm/score_mean" not in metrics


def test_a_group_of_which_nothing_can_be_read_teaches_only_that_code_is_needed():
    judged, _ = judged_by(lambda path, body: chat("", {"The": -0.1}))
    valid = np.array([e.valid for e in judged.extractions_G])
    assert set(judged.rewards_G[valid]) == {0.0} and set(judged.rewards_G[~valid]) == {-1.0}


def test_a_text_that_the_server_does_not_take_says_nothing_of_the_program():
    def too_long(path: str, body: Any) -> Any:
        text = body["messages"][0]["content"]
        return (400, "maximum context length") if "odd" in text else yes_or_no(path, body)

    judged, _ = judged_by(too_long)
    assert judged.scores_G[3].value is None and judged.scores_G[0].value is not None


def test_completions_have_a_prompt_and_their_own_form_of_log_probs():
    def answer(path: str, body: Any) -> Any:
        assert body["prompt"].endswith("\n\nAnswer:") and body["logprobs"] == 5
        return {"choices": [{"text": " Yes", "logprobs": {"top_logprobs": [{" Yes": -1.0}]}}]}

    judged, asked = judged_by(
        answer, "reward.generative.api=completions", "reward.generative.top_logprobs=5"
    )
    assert asked[0][0] == "/v1/completions"
    assert judged.scores_G[0].value == 0.5


def test_a_stated_number_is_a_share_of_its_range():
    def answer(path: str, body: Any) -> Any:
        assert "from 1 (wrong) to 5 (right" in body["messages"][0]["content"]
        return chat("It adds.\nscore = 4" if "good" in str(body) else "Fine, 9 of 10.")

    judged, _ = judged_by(
        answer,
        "reward.generative.read_out=score",
        "reward.generative.lowest=1",
        "reward.generative.highest=5",
    )
    assert [score.value for score in judged.scores_G] == [0.75, None, None, None, 0.75]


@pytest.mark.parametrize("read_out", ["score", "choice"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_an_answer_that_was_cut_off_is_not_read(read_out: str, api: str):
    text = "Its line is\nscore = 10" if read_out == "score" else "It is not that\nbest = A"

    def values(finish: str) -> list[float | None]:
        of_completions = {"choices": [{"text": text, "finish_reason": finish}]}
        answered = chat(text, finish=finish) if api == "chat" else of_completions
        keys = f"reward.generative.read_out={read_out}", f"reward.generative.api={api}"
        return [score.value for score in judged_by(lambda path, body: answered, *keys)[0].scores_G]

    assert values("length") == [None] * len(TEXTS)
    assert None not in [
        value for value, text in zip(values("stop"), TEXTS, strict=True) if text[0] == "`"
    ]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("score = 3\nbut then score: 7.5", 0.75),
        ("**Score: 10/10**", 1.0),
        (r"\boxed{0}", 0.0),
        (" 5 ", 0.5),
        ("5/10", 0.5),
        ("score = .5", 0.05),
        ("score = 7.", 0.7),
        ("score = +7", 0.7),
        ("The score: `7 / 10`.", 0.7),
        ('{"score": 7}', 0.7),
        (r"score = \boxed{7}", 0.7),
        ("score = 3, so score = 7", 0.7),
        ("score = 7/100", None),
        ("score = 2,5", None),
        ("score = 10 - 3 = 7", None),
        ("score = 10 of 10", None),
        ("score = 7\nscore = 10 - 3", None),
        ("It has\nhigh_score = 10\nand is wrong.", None),
        ("underscore: 3", None),
        ("self.score = 10\n", None),
        ("if score == 10:", None),
        ("score >= 10", None),
        ("score = 11", None),
        ("score = -1", None),
        ("7 cases pass", None),
        ("", None),
    ],
)
def test_only_a_stated_number_in_range_is_read(text: str, share: float | None):
    assert share_of_score(text, (0, 10)) == share


def test_a_choice_is_the_share_of_lists_that_a_program_wins():
    def answer(path: str, body: Any) -> Any:
        text = body["messages"][0]["content"]
        letter = next(b[0] for b in text.split("\n\n") if b[1:3] == ":\n" and "good" in b)
        return chat(f"It adds.\nbest = {letter}")

    judged, asked = judged_by(answer, "reward.generative.read_out=choice")
    assert len(asked) == 2  # rounds, with all three programs in each
    assert [score.value for score in judged.scores_G] == [1.0, 0.0, None, 0.0, 1.0]


def test_a_list_whose_answer_cannot_be_read_counts_for_no_program():
    lists = [["x", "y"], ["y", "x"], ["z", "x"]]
    texts = ["best = B", None, "none"]
    assert shares_of_choices(["x", "y", "z"], lists, texts) == [0.0, 1.0, None]


def test_spelling_of_a_token_does_not_count_and_a_share_is_never_beyond_its_bounds():
    assert share_of_yes({"YES": -1.0, "\u0120yes": -1.0, '"No"': -1.0}) == pytest.approx(2 / 3)
    assert share_of_yes({"Yes": 0.0, "No": -9999.0}) == 1.0
    assert share_of_yes({}) is None


def listing(path: str, body: Any) -> Any:
    return {"data": [{"id": "judge"}]} if path == "/v1/models" else yes_or_no(path, body)


@pytest.mark.parametrize(
    ("answering", "expected"),
    [
        (lambda path, body: {"data": [{"id": "other"}]}, "does not offer 'judge' but other; give"),
        (
            lambda path, body: listing(path, body) if body is None else chat("Yes"),
            "gives no log-probs, which reward.generative.read_out=yes_no reads; start it",
        ),
        (lambda path, body: (500, "down"), "does not judge: .*/models: 500 .*down"),
        (
            lambda path, body: listing(path, body) if body is None else (400, "no logprobs here"),
            "does not judge: .*no logprobs here",
        ),
        (lambda path, body: listing(path, body) if body is None else {}, "without a choice"),
    ],
)
def test_a_server_that_does_not_judge_is_found_out_before_the_start(
    answering: Answering, expected: str
):
    with serving(listing) as good, serving(answering) as bad:
        with pytest.raises(UserError, match=rf"reward\.(url|generative\.model): .*{expected}"):
            make_scorer(config(f"{good.url}/v1,{bad.url}")).check()
        make_scorer(config(good.url)).check()


@pytest.mark.parametrize(
    ("keys", "answered", "expected"),
    [
        (
            (),
            chat("The", {"The": -0.1, "Sure": -2.0}),
            r"top_logprobs: neither Yes nor No is among the 2 likeliest first tokens of judge "
            r"\('The', 'Sure'\); take",
        ),
        (
            ("read_out=score",),
            chat("It adds.\nGood."),
            r"read_out: no line of what judge answers ends with `score = NUMBER` as it is asked "
            r"for \('It adds.\\nGood.'\); take",
        ),
        (
            ("read_out=score", "max_tokens=9"),
            chat("score = 10", finish="length"),
            "max_tokens: 9 tokens do not hold an answer of judge to a program of two lines; raise",
        ),
        (("read_out=choice",), chat("best = Candidate B"), "read_out: no line .* `best = LETTER`"),
    ],
)
def test_a_model_whose_answer_cannot_be_read_is_refused_before_the_start(
    keys: tuple[str, ...], answered: object, expected: str
):
    overrides = [f"reward.generative.{key}" for key in keys]
    with serving(lambda path, body: listing(path, body) if body is None else answered) as server:
        with pytest.raises(UserError, match=rf"^reward\.generative\.{expected}") as refused:
            make_scorer(config(server.url, *overrides)).check()
        assert f"(asked: {server.url}/v1)" in str(refused.value)


@pytest.mark.parametrize(
    ("api", "choice", "expected"),
    [
        ("chat", {"logprobs": ["x"]}, r"choices\[0\]\.logprobs that is no object \(\['x'\]\)"),
        ("chat", {"message": "Yes"}, r"choices\[0\]\.message that is no object \('Yes'\)"),
        ("chat", chat("", {"Yes": None})["choices"][0], r"logprob that is no number \(None\)"),  # pyright: ignore[reportArgumentType]
        ("chat", chat("", {"Yes": math.nan})["choices"][0], r"logprob that is no number \(nan\)"),
        ("completions", {"logprobs": "x"}, r"choices\[0\]\.logprobs that is no object"),
        (
            "completions",
            {"logprobs": {"top_logprobs": [{"Yes": None}]}},
            r"top_logprobs\[0\]: 'Yes' that is no number \(None\)",
        ),
    ],
)
def test_an_answer_of_another_form_names_server_and_field(
    api: str, choice: dict[str, Any], expected: str
):
    answered = {"choices": [choice]}
    with serving(lambda path, body: listing(path, body) if body is None else answered) as server:
        scorer = make_scorer(config(server.url, f"reward.generative.api={api}"))
        with pytest.raises(EngineError, match=expected) as error:
            scorer.score(PROBLEM, ["x = 1"])
        assert f"completions of {server.url}/v1 answers with" in str(error.value)
        with pytest.raises(UserError, match=expected):
            scorer.check()


def test_a_prompt_of_ones_own_has_places_for_problem_and_program(tmp_path: Path):
    file = tmp_path / "prompt.txt"
    file.write_text("Is {code} an answer to {question}? {other}")
    _, asked = judged_by(yes_or_no, f"reward.generative.prompt={file}")
    texts = [body["messages"][0]["content"] for _, body in asked]  # as they arrived
    assert all(text.endswith("an answer to Add {code}.? {other}") for text in texts)
    assert sum("x = 'good'" in text for text in texts) == 1
    file.write_text("Is it right?")
    with pytest.raises(UserError, match=r"lacks \{question\} and \{code\}"):
        judged_by(yes_or_no, f"reward.generative.prompt={file}")
    with pytest.raises(UserError, match=r"reward\.generative\.prompt: .* cannot be read"):
        judged_by(yes_or_no, f"reward.generative.prompt={tmp_path}")
