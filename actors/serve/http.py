"""The HTTP face of the reward group: `POST /score`, `GET /health`, `GET /metrics`.

It validates, admits and answers; judging is done by the shards behind the queue. No Ray here: the
application runs inside a replica of Ray Serve, and in a test without one.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from actors.serve.metrics import ScoreMetrics
from actors.serve.queue import (
    QueueConfig,
    QueueFullError,
    ScoreQueue,
    Shard,
    ShardState,
    UnavailableError,
)
from conf.errors import DataError, ProjectError
from reward.judges.answers import Answer, group_answers, judged_rows, parse_answer
from rl.base.json_text import JsonFault, parse_json

_MAX_FAULTS = 20
_UNAVAILABLE_RETRY_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """What the server accepts."""

    queue: QueueConfig
    max_body_bytes: int
    timeout_s: float  # of reading a request, and of judging it
    token_sha256: bytes | None  # digest of the token that requests need; None: they need none


class ScoreApp:
    """The ASGI application; every request passes `__call__`, which counts and authorises it."""

    def __init__(self, shards: Sequence[Shard], cfg: HttpConfig) -> None:
        self._cfg = cfg
        self._queue = ScoreQueue(shards, cfg.queue)
        self._metrics = ScoreMetrics(self._queue, cfg.queue.capacity)
        self._num_open = 0  # requests without their whole response
        self._idle = asyncio.Event()
        self._idle.set()
        self._app = Starlette(
            routes=[
                Route("/score", self._score, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/metrics", self._show_metrics, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _refusal, ProjectError: _failure},
            lifespan=self._running,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._num_open += 1
        self._idle.clear()
        try:
            answer = self._app if self._is_authorised(scope) else _unauthorised
            await answer(scope, receive, note_status)
        finally:
            self._num_open -= 1
            if self._num_open == 0:
                self._idle.set()
            self._metrics.count_request(scope["path"], status, time.monotonic() - started)

    async def drain(self) -> None:
        """Take no more answers; return when every request has its response."""
        self._queue.end_admission()
        await self._idle.wait()

    @asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncIterator[None]:
        """The lifespan: an ASGI server enters it before the first request."""
        async with self._queue:
            yield

    def _is_authorised(self, scope: Scope) -> bool:
        if self._cfg.token_sha256 is None:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        matches = hmac.compare_digest(sha256(token.strip()).digest(), self._cfg.token_sha256)
        return kind.lower() == b"bearer" and matches

    async def _score(self, request: Request) -> Response:
        body = _parse(await self._read(request))
        groups = list(group_answers(_answers(body)))
        num = sum(len(group.rows) for group in groups)
        if num > self._cfg.queue.capacity:
            raise HTTPException(
                413, f"body: {num} answers do not fit into queue={self._cfg.queue.capacity}; split"
            )
        try:
            async with asyncio.timeout(self._cfg.timeout_s):
                judged = await self._queue.judge(
                    [(group.prompt, [row["response"] for row in group.rows]) for group in groups]
                )
        except TimeoutError as error:
            raise UnavailableError(
                f"no judgement within timeout_s={self._cfg.timeout_s:g}"
            ) from error
        self._metrics.count_judged(judged)
        rows = [
            row
            for group, verdict in zip(groups, judged, strict=True)
            for row in judged_rows(group, verdict)
        ]
        return _json(rows if isinstance(body, list) else rows[0])

    async def _read(self, request: Request) -> bytes:
        limit = self._cfg.max_body_bytes
        too_large = HTTPException(413, f"body: more than max_body_bytes={limit}; split it")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._cfg.timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError as error:
            raise HTTPException(408, "body: did not arrive in time") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "body: the client left before its end") from error
        return bytes(body)

    async def _health(self, _: Request) -> Response:
        """200 once every shard has scored; 503 before that, while one is down, and at the end."""
        states = self._queue.states
        well = all(state is ShardState.UP for state in states.values())
        serves = any(state is ShardState.UP for state in states.values())
        status = "ending" if self._queue.ending else "ok" if well else "degraded"
        if not serves:
            status = "down"
        content = {"status": status, "shards": {name: str(state) for name, state in states.items()}}
        return _json(content, 200 if status == "ok" else 503)

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _parse(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        value = parse_json(body, finite=True)  # the fields of an answer are echoed
    except JsonFault as fault:
        raise HTTPException(400, f"body:{fault.line}:{fault.column}: {fault}") from fault
    if not isinstance(value, dict | list):
        raise HTTPException(
            422,
            "body: an object with prompt and response, or a list of them, is needed, not "
            f"{type(value).__name__}",
        )
    return value


def _answers(body: dict[str, Any] | list[Any]) -> list[tuple[str, Answer]]:
    """The answers of a body, each with a name; all faults at once."""
    rows = body if isinstance(body, list) else [body]
    answers: list[tuple[str, Answer]] = []
    faults: list[str] = []
    for index, row in enumerate(rows):
        place = f"[{index}]." if isinstance(body, list) else ""
        try:
            if not isinstance(row, dict):
                raise DataError(f"an answer is an object, not {type(row).__name__}")
            answers.append((f"answer-{index}", parse_answer(row)))
        except DataError as error:
            faults += [f"{place}{fault}" for fault in str(error).splitlines()]
            if len(faults) >= _MAX_FAULTS:
                break
    if faults:
        raise HTTPException(422, "\n".join(faults))
    return answers


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(content, allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


async def _unauthorised(scope: Scope, receive: Receive, send: Send) -> None:
    message = "authorization: the header `Authorization: Bearer TOKEN` with the server's token"
    response = _json({"error": f"{message} is needed"}, 401, {"WWW-Authenticate": "Bearer"})
    await response(scope, receive, send)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = {
        404: f"path: {path!r} is none of POST /score, GET /health, GET /metrics",
        405: f"method: {request.method} is not what {path} takes",
    }.get(error.status_code, error.detail)
    return _json({"error": message}, error.status_code, dict(error.headers or {}))


async def _failure(_: Request, error: Exception) -> Response:
    content = {"error": str(error)}
    if isinstance(error, QueueFullError):
        return _json(content, 429, {"Retry-After": str(error.retry_after_s)})
    if isinstance(error, UnavailableError):
        return _json(content, 503, {"Retry-After": str(_UNAVAILABLE_RETRY_S)})
    return _json(content, 500)
