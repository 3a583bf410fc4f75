"""Many clients against a served reward model, beside the reward group called directly."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from actors.jobs.scoring import score_file
from actors.plan.reward_group import answer_config
from actors.serve.listening import TOKEN_VARIABLE
from conf.commands.reward_model import AnswerArgs
from conf.errors import EngineError, ProjectError, UserError
from reward.judges.answers import read_answers
from rl.base.console import Console
from rl.base.jsonlines import append_lines, read_lines
from rl.problems.minipy import specs

_ROOT = Path(__file__).resolve().parents[2]
_TOLERANCE = 1e-5  # of a score in float32: the engine's batches differ from run to run
_START_S = 300.0
_GRACE_S = 120.0  # after the end, for the last request of each client
_POLL_S = 0.5
_INVALID = ("I cannot solve this.", "```python\ndef f(xs) return 0\n```", "```python\n```")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """What the clients do."""

    model: str
    shards: int
    clients: int
    seconds: float
    queue: int  # of the server that is started
    answers: int  # different ones
    url: str | None  # None: a server is started


@dataclass(slots=True)
class LoadReport:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of requests answered with scores
    differences: list[float] = field(default_factory=list)  # |served - known score|
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """Of the time of a request that was answered with scores."""
        return float(np.percentile(self.seconds, percent)) * 1000 if self.seconds else float("nan")


def measure_serving(cfg: LoadConfig) -> None:
    """Print what `cfg.clients` clients get, how fast, and the same work without HTTP.

    Raises ProjectError when an answer was lost or wrong.
    """
    console = Console()
    with tempfile.TemporaryDirectory() as directory:
        rows = list(make_answers(cfg.answers))
        source, target = Path(directory, "in.jsonl"), Path(directory, "out.jsonl")
        append_lines(source, rows)
        alone = answer_config(AnswerArgs(model=cfg.model, shards=cfg.shards))
        floor_s = score_file(alone, read_answers(source), target)
        known = [line.value for line in read_lines(target)]
        with _server(cfg, Path(directory, "server.log")) as url:
            console.stage("load", f"{cfg.clients} clients for {cfg.seconds:g} s against {url}")
            full = asyncio.run(run_load(url, known, cfg.clients, cfg.seconds))
            crowd, crowd_s = cfg.queue + cfg.clients, cfg.seconds / 4
            console.stage("overload", f"{crowd} clients for {crowd_s:g} s")
            over = asyncio.run(run_load(url, known, crowd, crowd_s, skip=full.statuses[200]))
    floor = len(rows) / floor_s
    console.table(f"{cfg.clients} clients", [*_rows(full), *_against(full, floor)])
    console.table(f"{crowd} clients, queue={cfg.queue}", _rows(over))
    faults = [*full.lost, *over.lost, *full.wrong, *over.wrong]
    if faults:
        raise ProjectError(f"{len(faults)} answers were lost or wrong; the first: {faults[0]}")


def make_answers(num: int) -> Iterator[dict[str, Any]]:
    """Answers to generated problems, all different; one in ten holds no valid program."""
    rng = random.Random(0)
    for number, spec in enumerate(specs("train", num, seed=0)):
        program = spec.program(rng) if number % 2 else rng.choice(_PROGRAMS)
        response = f"Answer {number}.\n```python\n# {number}\n{program}\n```\n"
        if number % 10 == 0:
            response = rng.choice(_INVALID)
        yield {"id": number, "prompt": spec.question, "response": response}


_PROGRAMS = (
    "def f(xs):\n    return sum(x * x for x in xs if x % 2 == 0)",
    "def f(xs):\n    return sorted(-x for x in xs if x > 3)",
    "def f(xs):\n    return [abs(x) for x in xs]",
)


def _rows(report: LoadReport) -> list[tuple[str, str, str]]:
    num = report.statuses[200]
    others = sum(report.statuses.values()) - num - report.statuses[429]
    tails = [f"{report.percentile_ms(percent):.0f}" for percent in (50, 95, 99)]
    gap = f"{max(report.differences, default=0.0):.1e}"
    return [
        ("answered", str(num), f"lost {len(report.lost)}, wrong {len(report.wrong)}"),
        ("429", str(report.statuses[429]), "beyond the queue; asked again after Retry-After"),
        ("other status", str(others), "each is a lost answer"),
        ("p50, p95, p99", " ".join(tails) + " ms", "of requests answered with scores"),
        ("max |difference|", gap, f"of a score from launch/score.py's (allowed {_TOLERANCE:g})"),
        ("answers per second", f"{num / report.wall_s:.0f}", f"over {report.wall_s:.1f} s"),
    ]


def _against(report: LoadReport, floor: float) -> list[tuple[str, str, str]]:
    ratio = report.statuses[200] / report.wall_s / floor
    return [
        ("directly", f"{floor:.0f}", "answers per second, launch/score.py's reward group"),
        ("ratio", f"{ratio:.2f}", "of served to direct answers per second, one answer a request"),
    ]


# ---------------------------------------------------------------- the clients


async def run_load(
    url: str,
    known: Sequence[Mapping[str, Any]],
    clients: int,
    seconds: float,
    skip: int = 0,
) -> LoadReport:
    """Let `clients` ask for `seconds`, each its next answer when the last one has come.

    `known` are scored rows: their `prompt`, `response` and `id` are sent, the rest is compared.
    The first `skip` have been asked for before and come last.
    """
    report = LoadReport()
    cycle = itertools.cycle(range(len(known)))
    numbers = itertools.islice(cycle, skip % len(known), None)
    token = os.environ.get(TOKEN_VARIABLE)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    started = time.monotonic()
    async with aiohttp.ClientSession(
        url,
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=_GRACE_S),
    ) as session:

        async def client() -> None:
            while time.monotonic() < started + seconds:
                await _ask(session, known[next(numbers)], report)

        await asyncio.gather(*(client() for _ in range(clients)))
    report.wall_s = time.monotonic() - started
    return report


async def _ask(
    session: aiohttp.ClientSession, known: Mapping[str, Any], report: LoadReport
) -> None:
    """One answer, asked for again while the server says 429."""
    row = {name: known[name] for name in ("id", "prompt", "response")}
    give_up = time.monotonic() + _GRACE_S
    while True:
        started = time.monotonic()
        try:
            async with session.post("/score", json=row) as response:
                status, body = response.status, await response.text()
                retry_after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            report.lost.append(f"id {row['id']}: {error!r}")
            return
        report.statuses[status] += 1
        if status == 200:
            report.seconds.append(time.monotonic() - started)
            _compare(json.loads(body), known, report)
            return
        if status != 429 or not retry_after.isdecimal() or started > give_up:
            report.lost.append(f"id {row['id']}: {status} {body:.200}")
            return
        # Half as long again for some, so that the crowd does not come back all at once.
        await asyncio.sleep(int(retry_after) * random.uniform(1.0, 1.5))


def _compare(served: Mapping[str, Any], known: Mapping[str, Any], report: LoadReport) -> None:
    exact = ("id", "prompt", "response", "code", "valid", "reason")
    same = served.keys() == known.keys() and all(served[name] == known[name] for name in exact)
    for name in ("score", "reward"):
        ours, theirs = served.get(name), known[name]
        if ours is None or theirs is None:
            same = same and ours is theirs
        else:
            report.differences.append(abs(ours - theirs))
            same = same and abs(ours - theirs) <= _TOLERANCE
    if not same:
        report.wrong.append(f"id {known['id']}: {json.dumps(served)} instead of {dict(known)}")


# ---------------------------------------------------------------- the server


@contextmanager
def _server(cfg: LoadConfig, log: Path) -> Iterator[str]:
    """The given server, or one that is started here and ended after."""
    if cfg.url is not None:
        if not _is_well(cfg.url):
            raise UserError(f"url: {cfg.url}/health does not answer 200; start the server first")
        yield cfg.url
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    keys = {"model": cfg.model, "shards": cfg.shards, "port": port, "queue": cfg.queue}
    command = [sys.executable, str(_ROOT / "launch/serve.py")]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *(f"{name}={value}" for name, value in keys.items())],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        give_up = time.monotonic() + _START_S
        while not _is_well(url):
            if process.poll() is not None or time.monotonic() > give_up:
                raise EngineError(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(_POLL_S)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_GRACE_S)


def _is_well(url: str) -> bool:
    async def ask() -> bool:
        token = os.environ.get(TOKEN_VARIABLE, "")
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            try:
                async with session.get(f"{url}/health") as response:
                    return response.status == 200
            except (aiohttp.ClientError, OSError):
                return False

    return asyncio.run(ask())
