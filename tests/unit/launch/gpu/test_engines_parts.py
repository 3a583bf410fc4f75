"""Parts with engines, on a device and with actors that do not exist: every line of them runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from launch.gpu import engines
from launch.gpu.parts import PARTS, Bench
from launch.gpu.results import Recorder, Row, read_rows
from launch.gpu.shapes import _TINY
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import Ask, Completion, Finish, PromptGroup
from tests.settings import run_config

pytestmark = pytest.mark.unit

GIB = 2**30
TOKENS = 4


class FakeFleet:
    """Actors on a device of 80 GiB; a log-prob is minus the version that says it."""

    def __init__(self) -> None:
        self.packing = Packing(num_ranks=1, microbatch_tokens=512, packs=True)
        self.calls: list[str] = []
        self.version = self.published = 0
        self.asleep = False
        self.off_by = 0.0  # of the weights that the engine holds
        self.policy = self.rollout = self.reward = self
        weights = [("embed.weight", torch.ones(4, 2)), ("norm.weight", torch.ones(2))]
        worker = SimpleNamespace(
            get_model=lambda: SimpleNamespace(named_parameters=lambda: weights)
        )
        engine = SimpleNamespace(collective_rpc=lambda work: [work(worker)])
        loop = SimpleNamespace(
            exclusive=lambda function: SimpleNamespace(result=lambda: function(engine))
        )
        self.seats = (SimpleNamespace(handle=_Handle(SimpleNamespace(_loop=loop))),)
        rank = SimpleNamespace(iter_full_parameters=lambda _: iter([weights[:1], weights[1:]]))
        self.handles = (_Handle(SimpleNamespace(_engine=rank)),)

    async def update(self, *_: object) -> None:
        self.asleep = True
        self.version += 1

    async def give_way(self) -> None:
        self.asleep = False

    async def publish(self, version: int) -> None:
        assert not self.asleep
        self.published = version
        self.calls.append(f"publish {version}")

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[Any, ...], ...]:
        self.asleep = True
        return tuple(
            tuple(np.full(len(mb.target_ids_M), -float(self.version)) for mb in microbatches)
            for microbatches in minibatch.microbatches_by_rank
        )

    async def generate(self, asks: Sequence[Ask], version: int) -> AsyncIterator[PromptGroup]:
        assert not self.asleep and version == self.published
        for ask in asks:
            completion = Completion(
                prompt_id=ask.prompt.id,
                sample_idx=0,
                text="",
                token_ids=np.arange(10, 10 + TOKENS, dtype=np.int32),
                rollout_logprobs=np.full(TOKENS, -self.published - self.off_by, np.float32),
                finish=Finish.STOP,
                policy_version=version,
            )
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=np.arange(10, 14, dtype=np.int32),
                completions_G=(completion,),
                engine="rollout-0",
                finished_s=0.0,
            )

    async def score_problem(self, _: str, codes: Sequence[str]) -> list[Any]:
        assert not self.asleep
        return [SimpleNamespace(value=float(len(code))) for code in codes]


class _Handle:
    """What Ray calls a function in an actor with."""

    def __init__(self, actor: Any) -> None:
        self.__ray_call__ = SimpleNamespace(remote=self._call)
        self._actor = actor

    async def _call(self, function: Callable[[Any], int]) -> int:
        return function(self._actor)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    made = FakeFleet()

    @asynccontextmanager
    async def start(*_: object) -> AsyncIterator[FakeFleet]:
        yield made

    @contextmanager
    def session(*_: object) -> Iterator[Callable[[Any], Any]]:
        yield asyncio.run

    def write(bench: Bench, name: str, *_: object, **__: object) -> Path:
        directory = bench.folder / name
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(bytes(1000))
        return directory

    def plain(_: Bench, __: str, work: Sequence[tuple[str, Sequence[str]]]) -> Any:
        return [[float(len(code)) for code in codes] for _, codes in work], 1.0

    for name, fake in (
        ("start_fleet", start),
        ("session", session),
        ("write_model", write),
        ("dimensions", lambda *_: _TINY),
        ("compose_config", run_config),
        ("forced_overrides", list),
        ("_plain_scores", plain),
    ):
        monkeypatch.setattr(engines, name, fake)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda: ((70 if made.asleep else 20) * GIB, 80 * GIB)
    )
    return made


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[str], Mapping[str, Row]]:
    """Run a part as if there were GPUs; its figures by name."""

    def run(name: str) -> Mapping[str, Row]:
        (part,) = [part for part in PARTS if part.name == name]
        file = tmp_path / f"{name}.jsonl"
        measure = getattr(engines, part.entry.partition(":")[2])
        measure(Bench(device="cuda", record=Recorder(name, file), folder=tmp_path))
        return {row.what: row for row in read_rows(file)}

    return run


def test_a_shared_device_is_measured_from_publication_to_scores(
    fleet: FakeFleet, rows: Callable[[str], Mapping[str, Row]]
) -> None:
    found = rows("engines")
    assert fleet.calls == ["publish 1", "publish 2", "publish 3"]
    assert found["memory returned by sleep"].value == 50.0
    assert found["log-probs of engine and policy"].value == 0.0
    assert found["log-probs that the updates moved"].value == 3.0
    assert found["log-probs after waking"].value == 0.0
    assert {"publication, speed", "waking both engines"} <= found.keys()
    assert [row.what for row in found.values() if row.good is False] == []
    assert not any(row.skipped for row in found.values())


def test_two_devices_are_measured_without_sleep_and_scores(
    fleet: FakeFleet, rows: Callable[[str], Mapping[str, Row]]
) -> None:
    found = rows("nccl")
    assert found["checksum of the weights, difference"].value == 0
    assert not any("sleep" in what or "scores" in what for what in found)


def test_an_engine_with_other_weights_is_wrong(
    fleet: FakeFleet, rows: Callable[[str], Mapping[str, Row]]
) -> None:
    fleet.off_by = 0.5
    found = rows("nccl")
    assert found["log-probs of engine and policy"].good is False


def test_the_quickstart_is_that_of_a_gpu_and_its_metrics_are_read(
    monkeypatch: pytest.MonkeyPatch, rows: Callable[[str], Mapping[str, Row]], tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        directory = tmp_path / "quickstart_gpu/run"
        directory.mkdir(parents=True)
        step = {"time/step_s": 2.0, "rollout/mismatch_kl": 1e-5}
        (directory / "metrics.jsonl").write_text(
            "".join(json.dumps(step) + "\n" for _ in range(10))
        )
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    found = rows("quickstart")
    ((_, script, *arguments),) = commands
    assert Path(script).is_file() and "experiment=quickstart_gpu" in arguments
    run_config([one for one in arguments if not one.startswith("name=")])  # a good configuration
    assert (found["steps"].value, found["a step, median"].value) == (10, 2.0)
    assert found["rollout/mismatch_kl, largest"].good


def test_a_command_that_fails_ends_the_part_without_a_traceback_of_its_own(
    monkeypatch: pytest.MonkeyPatch, rows: Callable[[str], Mapping[str, Row]]
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    with pytest.raises(SystemExit, match="2"):
        rows("quickstart")
