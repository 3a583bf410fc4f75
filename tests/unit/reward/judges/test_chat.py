"""A served model is asked in the form of its path; what it says is checked before it is read."""

from __future__ import annotations

import pytest

from conf.errors import EngineError, UserError
from conf.schema import RequestConfig
from reward.judges.chat import Asking, ask, check_listed
from reward.judges.endpoints import EndpointKeys, Endpoints
from rl.types import Message
from tests.unit.reward.judges.servers import serving

pytestmark = pytest.mark.unit

TURNS = (Message("system", "Brief."), Message("user", "Hello?"))
KEYS = EndpointKeys("writer", "writer_request", "writer_request.timeout_s")


def servers(url: str) -> Endpoints:
    return Endpoints([url], RequestConfig(tries=1), 5.0, keys=KEYS)


def test_a_seed_and_a_temperature_are_sent_where_they_are_given() -> None:
    answer = {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}
    with serving(lambda path, body: answer) as server:
        asking = Asking(model="m", max_tokens=9, temperature=0.7, seed=3)
        assert ask(servers(server.url), TURNS, asking).text == "Hi."
        ask(servers(server.url), TURNS, Asking(model="m", max_tokens=9))
    (path, given), (_, plain) = server.asked
    assert path == "/chat/completions"
    assert (given["seed"], given["temperature"], given["max_tokens"]) == (3, 0.7, 9)
    assert [turn["role"] for turn in given["messages"]] == ["system", "user"]
    assert "seed" not in plain and plain["temperature"] == 0 and "logprobs" not in plain


def test_a_completion_is_read_from_its_text_and_one_that_is_cut_off_says_nothing() -> None:
    answers = iter(
        [{"text": "Hi.", "finish_reason": "stop"}, {"text": "H", "finish_reason": "length"}]
    )
    asking = Asking(model="m", api="completions", max_tokens=9)
    with serving(lambda path, body: {"choices": [next(answers)]}) as server:
        assert ask(servers(server.url), TURNS, asking).text == "Hi."
        assert ask(servers(server.url), TURNS, asking).text is None
    assert server.asked[0] == (
        "/completions",
        {
            "model": "m",
            "max_tokens": 9,
            "temperature": 0.0,
            "prompt": "Brief.\n\nHello?\n\nAnswer:",
        },
    )


@pytest.mark.parametrize("answer", [[], {"choices": "x"}, {"choices": [{"message": 3}]}])
def test_another_form_is_an_error_under_the_key_of_the_command(answer: object) -> None:
    said = r"^writer: /chat/completions of http.* answers with"
    with serving(lambda path, body: answer) as server, pytest.raises(EngineError, match=said):
        ask(servers(server.url), TURNS, Asking(model="m", max_tokens=9))


def test_a_model_that_is_not_listed_is_refused_with_those_that_are() -> None:
    with serving(lambda path, body: {"data": [{"id": "a"}, {"id": "b"}]}) as server:
        check_listed(servers(server.url), server.url, "b", "writer_model")
        with pytest.raises(UserError, match=r"^writer_model: .* does not offer 'c' but a, b;"):
            check_listed(servers(server.url), server.url, "c", "writer_model")
