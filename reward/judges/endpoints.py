"""Requests to servers that judge: several equal addresses, bounded tries, one deadline.

JSON over HTTP with the standard library; a judge asks from threads of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import Message
from http.client import HTTPException
from threading import Lock, Semaphore
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from conf.errors import EngineError, UserError, in_one_line
from conf.schema import RequestConfig
from rl.base.json_text import JsonFault, parse_json

T = TypeVar("T")
Asked = TypeVar("Asked")

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_UNFIT = (400, 413, 422)
_MAX_PAUSE_S = 60.0
_MAX_BYTES = 64 << 20  # of an answer
_SHOWN = 300  # characters of what a server says


class EndpointKeys(NamedTuple):
    """What a command calls the keys of its servers, for messages."""

    url: str = "reward.url"
    request: str = "reward.request"
    deadline: str = "reward.deadline_s"


_OF_A_RUN = EndpointKeys()


class UnfitError(Exception):
    """A request that the server understands and does not take, such as a text that is too long."""


class _TransientError(Exception):
    """Another try may help; `pause_s` is what the server asks for."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Endpoints:
    """Equal servers. A request goes to the one with the fewest under way, its next try to another.

    `sleep` and `clock` are those of `time`, for tests.
    """

    def __init__(  # noqa: PLR0913 - tests bring the time
        self,
        urls: Sequence[str],
        cfg: RequestConfig,
        deadline_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        *,
        keys: EndpointKeys = _OF_A_RUN,
    ) -> None:
        self.keys = keys
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._cfg = cfg
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._clock = clock
        self._token = None if cfg.token_from is None else os.environ.get(cfg.token_from)
        self._room = Semaphore(cfg.concurrency)
        self._threads = ThreadPoolExecutor(cfg.concurrency, thread_name_prefix="judge")
        self._lock = Lock()
        self._under_way = dict.fromkeys(self.urls, 0)

    def only(self, url: str) -> Endpoints:
        """One of the servers, which is asked once."""
        cfg = replace(self._cfg, tries=1)
        return Endpoints([url], cfg, self._deadline_s, self._sleep, self._clock, keys=self.keys)

    def ask_all(self, ask: Callable[[Asked], T], items: Sequence[Asked]) -> list[T]:
        """The answers to all items, in their order, asked at once as far as there is room."""
        return list(self._threads.map(ask, items))

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What a server answers to a JSON body.

        Raises:
            UnfitError: where the server does not take this body; another may be taken.
            UserError: where it takes none: no such path or model, a wrong token.
            EngineError: when no server has answered within the tries and the deadline.
        """
        tried: list[str] = []
        said = ""
        with self._room:
            end_s = self._clock() + self._deadline_s
            for attempt in range(self._cfg.tries):
                left_s = end_s - self._clock()
                if left_s <= 0:
                    break
                url = self._next(tried)
                tried.append(url)
                try:
                    return self._on(url, path, body, min(self._cfg.timeout_s, left_s))
                except _TransientError as error:
                    said = f"{url}{path}: {error}"
                    pause_s = max(error.pause_s, self._cfg.backoff_s * 2**attempt)
                if attempt + 1 < self._cfg.tries:
                    left_s = max(0.0, end_s - self._clock())
                    self._sleep(min(pause_s, _MAX_PAUSE_S, left_s))
        raise EngineError(
            f"{self.keys.url}: no answer in {len(tried)} tries within {self._deadline_s:g} s; the "
            f"last was {said} (raise {self.keys.request}.tries or {self.keys.deadline}, or look at "
            "the server)"
        )

    def get(self, url: str, path: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What one server answers, at once or never. Raises as `post` does."""
        try:
            return self._send(url, path, None, self._cfg.timeout_s)
        except _TransientError as error:
            raise EngineError(f"{url}{path}: {error}") from error

    def _next(self, tried: Sequence[str]) -> str:
        """The least busy of the servers that were tried least often."""
        with self._lock:
            return min(self.urls, key=lambda url: (tried.count(url), self._under_way[url]))

    def _on(self, url: str, path: str, body: object, timeout_s: float) -> Any:  # noqa: ANN401
        with self._lock:
            self._under_way[url] += 1
        try:
            return self._send(url, path, body, timeout_s)
        finally:
            with self._lock:
                self._under_way[url] -= 1

    def _send(self, url: str, path: str, body: object, timeout_s: float) -> Any:  # noqa: ANN401
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode("ascii")
        try:
            with urlopen(Request(url + path, data, headers), timeout=timeout_s) as answer:
                return parse_json(answer.read(_MAX_BYTES))
        except HTTPError as error:
            raise _refusal(url + path, error, self.keys) from error
        except JsonFault as error:
            raise _TransientError(f"the answer is {error}") from error
        except (OSError, HTTPException) as error:
            raise _TransientError(in_one_line(error)) from error


def _refusal(place: str, error: HTTPError, keys: EndpointKeys) -> Exception:
    try:
        said = error.read(4 * _SHOWN).decode("utf-8", "replace")[:_SHOWN]
    except (OSError, HTTPException):
        said = ""
    what = f"{error.code} {error.reason}" + f" ({' '.join(said.split())})" * bool(said.strip())
    if error.code in _TRANSIENT:
        return _TransientError(what, _retry_after(error.headers))
    if error.code in _UNFIT:
        return UnfitError(f"{place}: {what}")
    fix = {401: f"{keys.request}.token_from names the token's variable", 404: f"look at {keys.url}"}
    hint = fix.get(error.code, "look at the server")
    return UserError(f"{keys.url}: {place} refuses: {what}; {hint}")


def _retry_after(headers: Message) -> float:
    """Seconds that a server asks to wait; 0 where it names none."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
