"""A served reward model: each program has its own score, and what is no score ends the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from conf.errors import EngineError, NonFiniteError, UserError
from conf.schema import RewardConfig
from reward.code.extract import ExtractConfig
from reward.judges.scorers import make_scorer
from reward.judges.served import ServedJudge
from rl.types import JudgeKind, Message, Prompt
from tests.settings import POLICY, run_config
from tests.unit.reward.judges.servers import Answering, serving

pytestmark = pytest.mark.unit

PROBLEM = Prompt(id="p", messages=(Message("system", "Brief."), Message("user", "Add.")))
TEXTS = ("```python\nx = 1\n```", "no code", "```python\ny = 22\n```", "```python\nx = 1\n```")


def config(url: str, *overrides: str) -> RewardConfig:
    given = ["reward=remote", f"reward.url=[{url}]", "reward.request.tries=1", "probe.every=0"]
    return run_config([*given, *overrides]).reward


def judge(cfg: RewardConfig) -> ServedJudge:
    return ServedJudge(make_scorer(cfg), ExtractConfig(), cfg.shaping)


def by_length(path: str, body: Any) -> Any:
    return [row | {"valid": True, "score": float(len(row["response"]))} for row in body]


def test_different_programs_of_a_group_are_one_request_to_our_server():
    with serving(by_length) as server:
        judged = judge(config(server.url)).judge(PROBLEM, TEXTS)
    ((path, rows),) = server.asked
    assert path == "/score"
    assert [row["response"] for row in rows] == [TEXTS[0], TEXTS[2]]
    assert rows[0]["prompt"][1] == {"role": "user", "content": "Add."}
    first, second = len(TEXTS[0]), len(TEXTS[2])
    assert [score.value for score in judged.scores_G] == [first, None, second, first]
    assert [score.reused for score in judged.scores_G] == [False, False, False, True]
    assert judged.rewards_G.tolist() == pytest.approx([first, 0.0, second, first])  # softplus
    assert judged.judge is JudgeKind.RM and judged.num_executed == 0


def test_a_program_with_fences_of_its_own_stays_one_program():
    text = "~~~python\nx = '''\n```\n'''\n~~~"
    with serving(by_length) as server:
        judged = judge(config(server.url)).judge(PROBLEM, [text])
    ((_, rows),) = server.asked
    assert judged.extractions_G[0].valid and rows[0]["response"].startswith("````python\n")


def test_openrlhfs_form_has_whole_texts_and_takes_a_list_of_rewards():
    with serving(lambda path, body: {"rewards": [[0.5], -2], "scores": [1, 1]}) as server:
        cfg = config(f"{server.url}/get_reward", "reward.remote.api=openrlhf")
        judged = judge(cfg).judge(PROBLEM, TEXTS)
    ((path, body),) = server.asked
    assert path == "/get_reward"
    assert body["query"] == [f"Add.\n\n{TEXTS[0]}", f"Add.\n\n{TEXTS[2]}"]
    assert body["prompts"] == ["Add."] * 2 and len(body["labels"]) == 2
    assert [score.value for score in judged.scores_G] == [0.5, None, -2.0, 0.5]


def test_a_tokenizer_writes_the_query_in_its_template():
    with serving(lambda path, body: {"rewards": [1.0]}) as server:
        cfg = config(server.url, "reward.remote.api=openrlhf", f"reward.remote.tokenizer={POLICY}")
        judge(cfg).judge(PROBLEM, TEXTS[:1])
    query = server.asked[0][1]["query"][0]
    assert query.startswith("<|im_start|>system\nBrief.<|im_end|>\n<|im_start|>user\nAdd.")
    assert query.endswith(f"<|im_start|>assistant\n{TEXTS[0]}<|im_end|>\n")


@pytest.mark.parametrize(
    ("answer", "error", "expected"),
    [
        ([], EngineError, "2 programs were sent.* answers 0 of them"),
        ({"score": 1}, EngineError, "2 programs were sent.* answers nothing"),
        ([{"score": "high"}] * 2, EngineError, "a score must be a number"),
        ([{"score": None}] * 2, EngineError, "a score must be a number"),
        ([{"score": True}] * 2, EngineError, "a score must be a number"),
        ([{"score": float("nan")}] * 2, NonFiniteError, "must be finite"),
        ([{"score": 1.0, "valid": False, "reason": "trivial"}] * 2, EngineError, "reward.rule"),
    ],
)
def test_what_is_no_score_is_refused(answer: object, error: type[Exception], expected: str):
    with serving(lambda path, body: answer) as server, pytest.raises(error, match=expected):
        judge(config(server.url)).judge(PROBLEM, TEXTS)


@pytest.mark.parametrize(
    ("answering", "expected"),
    [
        (lambda path, body: [{"score": 1.0}], "gives no score: .*2 programs were sent"),
        (lambda path, body: (503, "no shard is up"), "gives no score: .*no shard is up"),
        (lambda path, body: (404, ""), "refuses: 404"),
        (lambda path, body: [{"score": float("inf")}] * 2, "must be finite"),
    ],
)
def test_a_server_that_gives_no_scores_is_found_out_before_the_start(
    answering: Answering, expected: str
):
    with serving(by_length) as good, serving(answering) as bad:
        with pytest.raises(UserError, match=rf"reward\.url: .*{expected}"):
            make_scorer(config(f"{good.url},{bad.url}")).check()
        make_scorer(config(good.url)).check()


def test_a_server_is_told_the_language_of_the_programs():
    rust = dataclasses.replace(PROBLEM, meta='{"language": "rust"}')
    text = "```rust\nfn f() -> i32 {\n    1\n}\n```"
    with serving(by_length) as server:
        judge(config(server.url)).judge(rust, [text])
        judge(config(server.url)).judge(PROBLEM, TEXTS)
    (_, rows), (_, python) = server.asked
    assert [(row["language"], row["response"]) for row in rows] == [("rust", text)]
    assert {row["language"] for row in python} == {"python"}
