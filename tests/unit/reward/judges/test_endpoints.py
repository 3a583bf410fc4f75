"""Requests to servers that judge: which address, how often, how long, and what is not repeated."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from conf.errors import EngineError, UserError
from conf.schema import RequestConfig
from reward.judges.endpoints import Endpoints, UnfitError
from tests.unit.reward.judges.servers import Answer, serving

pytestmark = pytest.mark.unit


class Clock:
    """Time that passes while somebody sleeps, and not otherwise."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def endpoints(*urls: str, deadline_s: float = 100.0, clock: Clock | None = None, **cfg: object):
    clock = clock or Clock()
    made = RequestConfig(**cfg)  # pyright: ignore[reportArgumentType]  # by name
    return Endpoints(urls, made, deadline_s, clock.sleep, lambda: clock.now)


def failure(servers: Endpoints, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        servers.post("/v1", {})
    return str(caught.value)


def in_turns(*answers: Answer):
    left: Iterator[Answer] = iter(answers)
    return lambda path, body: next(left)


def test_what_fails_for_the_moment_is_asked_again_after_longer_and_longer_pauses():
    clock = Clock()
    refusals = [(503, "up soon"), (200, b"not json"), (429, "", {"Retry-After": "9"}), {"ok": 1}]
    with serving(in_turns(*refusals)) as server:
        found = endpoints(server.url, clock=clock).post("/score", {"x": 1})
    assert found == {"ok": 1}
    assert server.asked == [("/score", {"x": 1})] * 4
    assert clock.pauses == [1.0, 2.0, 9.0]


def test_the_next_try_goes_to_another_address():
    with serving(lambda path, body: (500, "broken")) as bad, serving(lambda path, body: 1) as good:
        assert endpoints(bad.url, good.url).post("", {}) == 1
        assert len(bad.asked) == len(good.asked) == 1
    gone = endpoints(bad.url, good.url, tries=2)
    with pytest.raises(EngineError, match=r"reward\.url: no answer in 2 tries.*refused"):
        gone.post("", {})


def test_tries_end_with_the_deadline():
    clock = Clock()
    with serving(lambda path, body: (503, "")) as server:
        servers = endpoints(server.url, deadline_s=5.0, clock=clock, tries=50)
        assert failure(servers, EngineError).endswith("or look at the server)")
    assert clock.now == 5.0 and len(server.asked) == 3


def test_a_server_that_says_nothing_is_left():
    with serving(lambda path, body: time.sleep(0.3)) as server:
        assert "timed out" in failure(endpoints(server.url, timeout_s=0.05, tries=1), EngineError)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (404, UserError, "refuses: 404 .*no such model.*look at reward.url"),
        (401, UserError, r"reward\.request\.token_from names"),
        (400, UnfitError, "no such model"),
    ],
)
def test_what_another_try_cannot_mend_is_said_at_once(
    status: int, error: type[Exception], expected: str
):
    with serving(lambda path, body: (status, {"error": "no such model"})) as server:
        assert re.search(expected, failure(endpoints(server.url), error))
    assert len(server.asked) == 1


def test_answers_come_in_order_and_no_more_are_under_way_than_there_is_room():
    def slowly(path: str, body: int) -> int:
        time.sleep(0.02 if body % 2 else 0.001)
        return body * 10

    with serving(slowly) as first, serving(slowly) as second:
        servers = endpoints(first.url, second.url, concurrency=3)
        found = servers.ask_all(lambda number: servers.post("", number), range(20))
    assert found == [number * 10 for number in range(20)]
    assert first.most_at_once <= 3 and second.most_at_once <= 3
    assert first.asked and second.asked and len(first.asked) + len(second.asked) == 20


def test_a_token_is_sent_that_the_environment_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    with serving(lambda path, body: {}) as server:
        endpoints(server.url, token_from="JUDGE_TOKEN").post("", {})
        endpoints(server.url).get(server.url, "/models")
    assert server.tokens == ["Bearer secret", None]
    assert server.asked[1] == ("/models", None)
