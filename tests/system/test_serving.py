"""The served reward model as a client sees it: one server with the shipped model, to its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from conf.schema import RequestConfig
from launch.benches.serving import make_answers
from reward.code.extract import ExtractConfig
from reward.judges.scorers import make_scorer
from reward.judges.served import ServedJudge
from rl.types import Message, Prompt
from tests.settings import run_config
from tests.system.forks import ROOT, free_port

pytestmark = pytest.mark.system

MODEL = ROOT / "assets/minipy/rm"
TOKEN = uuid.uuid4().hex
MARK = uuid.uuid4().hex  # in the environment of every process that the server starts
QUEUE = 16


Row = dict[str, Any]
Record = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A running `launch/serve.py`."""

    url: str
    process: subprocess.Popen[bytes]
    known: list[Row]

    def client(self, token: str | None = TOKEN) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120)


def command(*args: str) -> list[str]:
    return [sys.executable, str(ROOT / args[0]), *args[1:]]


def left_processes(patience_s: float = 10.0) -> list[str]:
    """Command lines of processes that carry the mark and do not end."""
    give_up = time.monotonic() + patience_s
    while (found := marked_processes()) and time.monotonic() < give_up:
        time.sleep(0.2)
    return found


def marked_processes() -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token, and the rows that `launch/score.py` makes of the same answers."""
    directory = tmp_path_factory.mktemp("serving")
    (directory / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in make_answers(40)))
    port = free_port()
    serve = ("launch/serve.py", f"model={MODEL}", f"port={port}", f"queue={QUEUE}")
    score = ("launch/score.py", f"model={MODEL}", "input=in.jsonl", "output=out.jsonl")
    environment = os.environ | {"CODESCALER_SERVE_TOKEN": TOKEN, "TEST_MARK": MARK}
    with (directory / "log").open("w") as log:
        # Both at once: most of a start is loading libraries.
        serving, scoring = (
            subprocess.Popen(command(*args), cwd=directory, env=env, stdout=log, stderr=log)
            for args, env in ((serve, environment), (score, None))
        )
    try:
        wait_until_well(serving, f"http://127.0.0.1:{port}", directory / "log")
        assert scoring.wait(280) == 0, (directory / "log").read_text()
        known = [json.loads(line) for line in (directory / "out.jsonl").open()]
        yield Server(f"http://127.0.0.1:{port}", serving, known)
    finally:
        for process in (serving, scoring):
            process.terminate()
            process.wait(60)


def wait_until_well(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + 280
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/health", headers=headers).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.mark.timeout(600)
def test_a_served_score_is_the_score_of_the_file(server: Server, record: Record) -> None:
    sent = [{name: row[name] for name in ("id", "prompt", "response")} for row in server.known]

    async def ask() -> tuple[list[Row], list[Row]]:
        async with server.client() as client:
            alone = [(await client.post("/score", json=row)).json() for row in sent[:8]]
            batches = [await client.post("/score", json=sent[i : i + 8]) for i in range(8, 40, 8)]
        return alone, [row for batch in batches for row in batch.json()]

    alone, batched = asyncio.run(ask())
    gaps: list[float] = []
    for served, known in zip([*alone, *batched], server.known, strict=True):
        for name in ("score", "reward"):
            ours, theirs = served.pop(name), known[name]
            assert (ours is None) == (theirs is None)
            gaps += [] if ours is None else [abs(ours - theirs)]
        assert served == {name: known[name] for name in served}
        assert served.keys() | {"score", "reward"} == known.keys()
    record(f"max |served score - score of launch/score.py|: {max(gaps):.1e}")
    assert max(gaps) <= 1e-5
    assert any(row["valid"] for row in alone) and not all(row["valid"] for row in alone)


def test_a_judge_elsewhere_scores_as_the_file_does(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    request = RequestConfig(token_from="JUDGE_TOKEN")
    cfg = run_config(["reward=remote", f"reward.url={server.url}", "probe.every=0"]).reward
    scorer = make_scorer(replace(cfg, request=request))
    scorer.check()
    judge = ServedJudge(scorer, ExtractConfig(), "softplus")
    for row in server.known[:10]:
        problem = Prompt(id=str(row["id"]), messages=(Message("user", row["prompt"]),))
        judged = judge.judge(problem, [row["response"]])
        assert judged.scores_G[0].value == pytest.approx(row["score"], abs=1e-5)
        assert judged.rewards_G[0] == pytest.approx(row["reward"], abs=1e-5)


def test_without_the_token_nothing_is_answered(server: Server) -> None:
    async def ask() -> list[int]:
        async with server.client(token=None) as client:
            paths = ("/health", "/metrics", "/score")
            return [(await client.request("GET", path)).status_code for path in paths]

    assert asyncio.run(ask()) == [401, 401, 401]


def test_beyond_the_queue_is_429_and_no_answer_is_lost_or_wrong(server: Server) -> None:
    known = {row["id"]: row["score"] for row in server.known}
    sent = [{name: row[name] for name in ("id", "prompt", "response")} for row in server.known]

    async def ask() -> list[httpx.Response]:
        async with server.client() as client:
            bodies = [sent[i % 25 : i % 25 + QUEUE] for i in range(50)]  # each fills the queue
            return await asyncio.gather(*(client.post("/score", json=body) for body in bodies))

    responses = asyncio.run(ask())
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) == {200, 429}
    assert all("Retry-After" in r.headers for r in responses if r.status_code == 429)
    for response in responses:
        for row in response.json() if response.status_code == 200 else []:
            assert row["score"] == pytest.approx(known[row["id"]], abs=1e-5)

    async def metrics() -> list[str]:
        async with server.client() as client:
            return (await client.get("/metrics")).text.splitlines()

    lines = asyncio.run(metrics())
    refused = f'rm_requests_total{{path="/score",status="429"}} {statuses[429]}.0'
    assert refused in lines and "rm_queue_in_flight 0.0" in lines


def test_a_port_in_use_is_refused_before_any_engine(server: Server) -> None:
    assert_refused([f"port={server.url.rpartition(':')[2]}"], ["port", "in use"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["host=0.0.0.0"], ["host", "token_file=FILE"]),
        (["token_file=/nowhere/token"], ["token_file", "/nowhere/token"]),
    ],
)
def test_a_wrong_address_or_token_is_refused_before_any_engine(
    args: list[str], words: list[str]
) -> None:
    assert_refused(args, words)


def assert_refused(args: list[str], words: list[str]) -> None:
    arguments = command("launch/serve.py", f"model={MODEL}", *args)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.timeout(300)
def test_at_the_end_what_is_in_flight_is_answered_and_nothing_is_left(server: Server) -> None:
    sent = [{name: row[name] for name in ("id", "prompt", "response")} for row in server.known]
    for row in sent:
        row["response"] += "\n"  # the text of the answer; its program is known already
        row["prompt"] += " Again."  # a new problem: no score is known

    async def ask() -> list[httpx.Response]:
        async with server.client() as client:
            tasks = [asyncio.create_task(client.post("/score", json=sent[:QUEUE]))]
            while "rm_queue_in_flight 0.0" in (await client.get("/metrics")).text:
                if tasks[0].done():
                    break
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    (response,) = asyncio.run(ask())
    assert response.status_code == 200 and len(response.json()) == QUEUE
    assert server.process.wait(90) == 0
    assert left_processes() == []
