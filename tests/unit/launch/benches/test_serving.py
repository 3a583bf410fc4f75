"""The load client sees every kind of wrong answer; a server that lies must not look well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from launch.benches.serving import LoadReport, make_answers, run_load

pytestmark = pytest.mark.unit

KNOWN = [
    {
        "id": number,
        "prompt": f"q{number}",
        "response": "r",
        "code": "x = 1",
        "valid": True,
        "reason": "ok",
        "score": float(number),
        "reward": float(number),
    }
    for number in range(20)
]


def load(changes: dict[str, Any] | None = None, *, busy: int = 0, status: int = 200) -> LoadReport:
    """Load a server that answers right but for `changes`, after `busy` refusals."""
    refusals = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal refusals
        row = await request.json()
        if refusals < busy:
            refusals += 1
            return web.json_response({"error": "queue"}, status=429, headers={"Retry-After": "0"})
        return web.json_response(KNOWN[row["id"]] | (changes or {}), status=status)

    async def main() -> LoadReport:
        app = web.Application()
        app.router.add_post("/score", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            return await run_load(f"http://{host}:{port}", KNOWN, clients=4, seconds=0.2)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_right_answers_are_counted_and_refusals_are_asked_again():
    report = load(busy=3)
    assert report.statuses[429] == 3
    assert report.statuses[200] == len(report.seconds) > 0
    assert report.wrong == report.lost == []
    assert report.percentile_ms(99) >= report.percentile_ms(50) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"score": 99.0},
        {"score": None},
        {"reward": 99.0},
        {"code": "x = 2"},
        {"valid": False},
        {"reason": "syntax"},
        {"id": 99},
        {"more": 1},
    ],
)
def test_a_wrong_field_is_a_wrong_answer(changes: dict[str, Any]):
    report = load(changes)
    assert len(report.wrong) == report.statuses[200] > 0


@pytest.mark.parametrize("status", [401, 500, 503])
def test_another_status_is_a_lost_answer(status: int):
    report = load(status=status)
    assert len(report.lost) == report.statuses[status] > 0
    assert report.seconds == []


def test_answers_are_all_different_and_some_hold_no_program():
    rows = list(make_answers(200))
    assert len({row["response"] for row in rows if row["id"] % 10}) == 180
    assert [row["id"] for row in rows] == list(range(200))
    assert all("# " not in row["response"] for row in rows[::10])
