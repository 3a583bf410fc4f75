"""The reward group of training behind HTTP, on Ray Serve.

The shards are the actors that `start_fleet` starts for training, on the same bundles after the same
pre-flight check, so a served score is a training score. Ray Serve has one small replica in front
of them (`ScoreIngress`): its proxy speaks HTTP, its controller restarts the replica if it dies. A
shard that dies is started again by Ray in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from starlette.types import ASGIApp

from actors.cluster.deadlines import wait_for
from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, start_fleet
from actors.serve.http import HttpConfig, ScoreApp
from actors.serve.queue import Group, QueueConfig
from conf.errors import EngineError, NonFiniteError, ProjectError, UserError
from conf.schema import Config
from reward.judges.judge import Judged
from rl.base.console import Console

_APP = "score"
_LOGGING: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}
_RESTARTS = 3  # of one shard; then the model or the machine is at fault
_TURNS = 5  # requests that follow the last responses through the proxy
_TURN_S = 10.0  # of one of them at most
_FLUSH_S = 0.5  # for what the proxy has sent to leave this machine
_MAX_ONGOING = 100_000  # the queue of Serve itself is never the one that fills


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """How the reward group is offered."""

    host: str
    port: int
    token: str | None  # that requests must carry
    queue: int  # answers admitted at once
    batch: int  # answers of one call of a shard
    max_body_bytes: int
    timeout_s: float  # of one request
    drain_s: float  # at the end, for requests in flight


class RayShard:
    """A `RewardModelActor` as the queue sees it."""

    def __init__(self, name: str, handle: Any, deadline_s: float) -> None:  # noqa: ANN401 - actor handle
        self.name = name
        self._handle = handle
        self._deadline_s = deadline_s

    async def judge_many(self, groups: Sequence[Group]) -> list[Judged | ProjectError]:
        """Judge groups; what one fails with is its own result."""
        return await wait_for(
            self._handle.judge_many.remote(groups),
            self._deadline_s,
            f"the judgement of {len(groups)} groups by {self.name}",
        )

    async def check_health(self) -> None:
        """Score a program that no cache has seen."""
        ((score,),) = await wait_for(
            self._handle.score_problems.remote([(f"probe {secrets.token_hex(8)}", ["pass"])]),
            self._deadline_s,
            f"a probe of {self.name}",
        )
        if score.value is None or not abs(score.value) < float("inf"):
            raise NonFiniteError(f"{self.name} scored a probe with {score.value}")


@serve.ingress()
class ScoreIngress:
    """The replica that Serve runs: the application, and how it ends."""

    def __init__(self, cfg: HttpConfig, handles: Sequence[Any]) -> None:
        shards = [
            RayShard(f"reward-{i}", handle, cfg.timeout_s) for i, handle in enumerate(handles)
        ]
        self._score_app = ScoreApp(shards, cfg)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application, as Serve asks for it."""
        return self._score_app

    async def drain(self) -> None:
        """Take no more answers; return when every request has its response."""
        await self._score_app.drain()


def serve_rewards(cfg: Config, serving: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; then answer what is in flight, and leave no process behind.

    Raises:
        UserError: a model, host, port or token that cannot be; nothing has been started then.
        EngineError: when Ray, Serve or an engine does not start.
    """
    token = serving.token
    http = HttpConfig(
        queue=QueueConfig(capacity=serving.queue, batch=serving.batch),
        max_body_bytes=serving.max_body_bytes,
        timeout_s=serving.timeout_s,
        token_sha256=None if token is None else sha256(token.encode()).digest(),
    )
    console = Console()
    num = cfg.reward.shards
    console.stage("serve", f"{num} {'shard' if num == 1 else 'shards'} of {cfg.reward.model}")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with session(cfg.ray, f"serve-{serving.port}"):
        _refuse_other_serve()
        asyncio.run(_serve(cfg, serving, http, console))
    console.say("ended")


async def _serve(cfg: Config, serving: ServeConfig, http: HttpConfig, console: Console) -> None:
    """Start, wait for a signal, end. A signal during the start or a second one ends at once."""
    started, stop = asyncio.Event(), asyncio.Event()
    body = asyncio.create_task(_until(stop, started, (cfg, serving, http), console))

    def on_signal() -> None:
        if started.is_set() and not stop.is_set():
            stop.set()
        else:
            body.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    with contextlib.suppress(asyncio.CancelledError):
        await body


async def _until(
    stop: asyncio.Event,
    started: asyncio.Event,
    configs: tuple[Config, ServeConfig, HttpConfig],
    console: Console,
) -> None:
    cfg, serving, http = configs
    specs = FleetSpec(reward=True, reward_restarts=_RESTARTS)
    async with start_fleet(cfg, specs, "serve") as fleet:
        try:
            shards = [seat.handle for seat in fleet.reward.seats]
            ingress = await asyncio.to_thread(_start_serve, serving, http, shards)
            started.set()
            _announce(serving, http, console)
            await stop.wait()
            console.say("ending: what is in flight is answered, new requests are refused")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ingress.drain.remote(), serving.drain_s)
            await asyncio.to_thread(_follow_through_proxy, serving.host, serving.port)
            await asyncio.sleep(_FLUSH_S)
        finally:
            await asyncio.to_thread(serve.shutdown)


def _follow_through_proxy(host: str, port: int) -> None:
    """Return when requests that came after the last responses have had theirs, or none comes.

    The replica has given its responses away when it is drained, and the proxy, which is a process
    of its own, may not have: how long that takes depends on the machine.
    """
    for _ in range(_TURNS):
        connection = HTTPConnection(host, port, timeout=_TURN_S)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
        except (OSError, HTTPException):
            return
        finally:
            connection.close()


def _start_serve(serving: ServeConfig, http: HttpConfig, handles: Sequence[Any]) -> Any:  # noqa: ANN401 - Serve's handle
    """Start the proxy and the ingress; returns the ingress's handle."""
    deployment = serve.deployment(
        name=_APP,
        num_replicas=1,  # the queue is in its memory
        max_ongoing_requests=_MAX_ONGOING,
        ray_actor_options={"num_cpus": 0},
        logging_config=_LOGGING,
    )(ScoreIngress)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": serving.host, "port": serving.port},
            logging_config=_LOGGING,
        )
        return serve.run(deployment.bind(http, handles), name=_APP)
    except (RuntimeError, RayServeException, RayError) as error:
        raise EngineError(f"Ray Serve did not start: {error}") from error


def _announce(serving: ServeConfig, http: HttpConfig, console: Console) -> None:
    base = f"http://{serving.host}:{serving.port}"
    token = "" if http.token_sha256 is None else "; requests need the token"
    console.say(f"POST {base}/score   GET {base}/health   GET {base}/metrics{token}")
    console.say(f"up to {serving.queue} answers are admitted at once; Ctrl-C ends")


def _refuse_other_serve() -> None:
    """A cluster has one Ray Serve, with one address: another user's is not taken over."""
    if serve.status().proxies:
        raise UserError(
            "Ray Serve already runs on this cluster, and its address cannot be changed; end it "
            "with `serve shutdown`, or unset RAY_ADDRESS to serve from a cluster of its own"
        )
