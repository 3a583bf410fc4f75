"""What the server answers to good, bad, unauthorised and too many requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import httpx
import pytest

from actors.serve.http import HttpConfig, ScoreApp
from actors.serve.queue import QueueConfig
from tests.unit.actors.score_fakes import FakeShard

pytestmark = pytest.mark.unit

TOKEN = "0123456789abcdef0123"
ROW = {"prompt": "q", "response": "abc"}
Body = Callable[[httpx.AsyncClient], Awaitable[None]]


def config(**changes: Any) -> HttpConfig:
    fields: dict[str, Any] = {"max_body_bytes": 2000, "timeout_s": 5.0, "token_sha256": None}
    queue = QueueConfig(capacity=changes.pop("capacity", 4), batch=8, health_check_every_s=0.01)
    return HttpConfig(queue=queue, **(fields | changes))


@asynccontextmanager
async def lifespan(app: ScoreApp) -> AsyncIterator[None]:
    """Start and end the application as an ASGI server does."""
    events: asyncio.Queue[str] = asyncio.Queue()
    said: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> dict[str, Any]:
        return {"type": await events.get()}

    async def send(message: Any) -> None:
        await said.put(message["type"])

    task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    for phase in ("startup", "shutdown"):
        await events.put(f"lifespan.{phase}")
        assert await said.get() == f"lifespan.{phase}.complete"
        if phase == "startup":
            yield
    await task


def client_of(app: ScoreApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


def serve(body: Body, shard: FakeShard | None = None, **changes: Any) -> None:
    """Run `body` with a client of a server on one fake shard, once that is up."""

    async def main() -> None:
        app = ScoreApp([shard or FakeShard()], config(**changes))
        async with asyncio.timeout(20), lifespan(app), client_of(app) as client:
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            while (await client.get("/health")).status_code != 200:
                if shard is not None and shard.dead:
                    break
                await asyncio.sleep(0.001)
            await body(client)

    asyncio.run(main())


def test_an_answer_gains_the_fields_of_the_contract_and_keeps_its_own():
    async def body(client: httpx.AsyncClient) -> None:
        response = await client.post("/score", json=ROW | {"id": 7, "score": "overwritten"})
        gained = {"code": "abc", "valid": True, "reason": "ok", "score": 3.0, "reward": 3.0}
        assert response.status_code == 200
        assert response.json() == ROW | {"id": 7} | gained

    serve(body)


def test_a_list_is_answered_with_a_list_in_its_order():
    shard = FakeShard()

    async def body(client: httpx.AsyncClient) -> None:
        rows = [{"prompt": p, "response": r} for p, r in (("q", "a"), ("q", "bb"), ("p", "ccc"))]
        response = await client.post("/score", json=rows)
        assert [row["score"] for row in response.json()] == [1.0, 2.0, 3.0]
        assert (await client.post("/score", json=[])).json() == []

    serve(body, shard)
    # Consecutive answers to one prompt are one group, as the lines of a file are.
    assert any({"a", "bb"} <= set(texts) for texts in shard.calls)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"{oops", 400, "body:1:2: not JSON"),
        (b'{"prompt": "\xff"}', 400, "body:1:13: not UTF-8"),
        (b'{"prompt": "q", "response": "r", "x": NaN}', 400, "NaN is not a number"),
        (b'{"prompt": "q", "response": "r", "x": 1e999}', 400, "1e999 is not a number"),
        (b"[" * 1500, 400, "not JSON"),
        (b"3", 422, "an object with prompt and response"),
        (b'{"prompt": "q"}', 422, "response: a text is needed (None)"),
        (b'{"prompt": "\\ud800", "response": "r"}', 422, "prompt: holds a lone surrogate"),
        (b'{"prompt": [{"role": "system", "content": "s"}], "response": "r"}', 422, "user turn"),
        (b'[{"prompt": "q", "response": "r"}, 4]', 422, "[1].an answer is an object, not int"),
        (b'[{"prompt": "q"}, {"response": 1}]', 422, "[0].response"),
        (b'{"prompt": 3}', 422, "is needed (3)\nresponse: a text is needed"),
        (b'[{"prompt": "q"}, {"response": 1}]', 422, "[1].prompt"),
        (b'[{"prompt": "q"}, {"response": 1}]', 422, "[1].response"),
        (json.dumps([ROW] * 5).encode(), 413, "5 answers do not fit into queue=4"),
        (b'"' + b"x" * 2000 + b'"', 413, "max_body_bytes=2000"),
    ],
)
def test_bad_input_is_refused_with_field_rule_and_value(content: bytes, status: int, words: str):
    shard = FakeShard()

    async def body(client: httpx.AsyncClient) -> None:
        response = await client.post("/score", content=content)
        assert response.status_code == status
        assert words in response.json()["error"]

    serve(body, shard)
    assert shard.calls == []


def test_a_body_that_does_not_say_its_length_is_bounded_too():
    async def endless():
        while True:
            yield b"x" * 100

    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.post("/score", content=endless())).status_code == 413

    serve(body)


def test_unknown_paths_and_methods_are_named():
    async def body(client: httpx.AsyncClient) -> None:
        unknown = await client.get("/nope")
        assert unknown.status_code == 404 and "'/nope'" in unknown.json()["error"]
        assert (await client.get("/score")).status_code == 405

    serve(body)


def test_beyond_the_queue_a_request_gets_429_and_when_to_ask_again():
    shard = FakeShard()

    async def body(client: httpx.AsyncClient) -> None:
        shard.open.clear()
        tasks = [asyncio.create_task(client.post("/score", json=ROW)) for _ in range(4)]
        while "rm_queue_waiting 0.0" in (await client.get("/metrics")).text and not shard.calls:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        refused = await client.post("/score", json=ROW)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        shard.open.set()
        assert [r.status_code for r in await asyncio.gather(*tasks)] == [200] * 4

    serve(body, shard)


@pytest.mark.parametrize("path", ["/score", "/health", "/metrics", "/nope"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN]
)
def test_without_the_token_nothing_is_said(path: str, header: str | None):
    shard = FakeShard()

    async def body(client: httpx.AsyncClient) -> None:
        del client.headers["Authorization"]
        headers = {} if header is None else {"Authorization": header}
        method = "POST" if path == "/score" else "GET"
        response = await client.request(method, path, headers=headers, content=json.dumps(ROW))
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert set(response.json()) == {"error"} and TOKEN not in response.text

    serve(body, shard, token_sha256=sha256(TOKEN.encode()).digest())
    assert shard.calls == []


def test_with_the_token_requests_are_answered():
    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.post("/score", json=ROW)).status_code == 200

    serve(body, token_sha256=sha256(TOKEN.encode()).digest())


def test_a_dead_shard_is_seen_in_health_and_answers_503():
    shard = FakeShard()
    shard.dead = True

    async def body(client: httpx.AsyncClient) -> None:
        while (health := (await client.get("/health")).json())["shards"]["reward-0"] != "down":
            await asyncio.sleep(0.001)
        assert health["status"] == "down"
        response = await client.post("/score", json=ROW)
        assert response.status_code == 503 and "Retry-After" in response.headers

    serve(body, shard)


def test_a_judgement_that_takes_too_long_is_503():
    shard = FakeShard()

    async def body(client: httpx.AsyncClient) -> None:
        shard.open.clear()
        response = await client.post("/score", json=ROW)
        assert response.status_code == 503
        assert "timeout_s=0.05" in response.json()["error"]

    serve(body, shard, timeout_s=0.05)


def test_a_score_that_is_not_finite_is_500_with_its_reason():
    async def body(client: httpx.AsyncClient) -> None:
        response = await client.post("/score", json=ROW | {"response": "nan"})
        assert response.status_code == 500
        assert response.json() == {"error": "the reward model gave nan"}

    serve(body)


def test_metrics_count_requests_answers_and_programs():
    async def body(client: httpx.AsyncClient) -> None:
        await client.post("/score", json=[ROW, ROW])
        await client.post("/score", json={})
        await client.get("/../etc")
        lines = (await client.get("/metrics")).text.splitlines()
        for line in (
            'rm_requests_total{path="/score",status="200"} 1.0',
            'rm_requests_total{path="/score",status="422"} 1.0',
            'rm_requests_total{path="other",status="404"} 1.0',
            'rm_answers_total{reason="ok"} 2.0',
            "rm_codes_scored_total 2.0",
            "rm_request_seconds_count 1.0",
            "rm_queue_capacity 4.0",
            "rm_queue_in_flight 0.0",
            'rm_shard_up{shard="reward-0"} 1.0',
        ):
            assert line in lines

    serve(body)


def test_drain_refuses_what_is_new_and_waits_for_what_is_in_flight():
    shard = FakeShard()

    async def main() -> None:
        app = ScoreApp([shard], config())
        async with asyncio.timeout(20), lifespan(app), client_of(app) as client:
            while (await client.get("/health")).status_code != 200:
                await asyncio.sleep(0.001)
            shard.open.clear()
            task = asyncio.create_task(client.post("/score", json=ROW))
            while not shard.calls:
                await asyncio.sleep(0.001)
            drain = asyncio.create_task(app.drain())
            await asyncio.sleep(0.01)
            assert (await client.post("/score", json=ROW)).status_code == 503
            assert (await client.get("/health")).json()["status"] == "ending"
            assert not drain.done()
            shard.open.set()
            assert (await task).status_code == 200
            await drain

    asyncio.run(main())
