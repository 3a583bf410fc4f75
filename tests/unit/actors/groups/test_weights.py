"""A publication: the order of its calls, who makes them, and a version that is not served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from actors.groups import weights
from actors.groups.handles import WeightRoute
from actors.groups.weights import RolloutClient, WeightPublisher
from conf.errors import VersionMismatchError

pytestmark = pytest.mark.unit


class FakeEngine:
    """A rollout actor that notes down each call, and serves what it is told, or something else."""

    def __init__(self, served: int | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._served = served

    def __getattr__(self, name: str) -> Any:
        return _Method(name, self)

    def answer(self, name: str, argument: Any) -> Any:
        self.calls.append((name, argument))
        if name != "finish_weight_update":
            return None
        return argument if self._served is None else self._served


class _Method:
    def __init__(self, name: str, engine: FakeEngine) -> None:
        self._name, self._engine = name, engine

    def remote(self, argument: Any = None) -> Any:
        return self._engine.answer(self._name, argument)


class FakeTrainEngine:
    """Two buckets of one tensor each."""

    gathered = 0

    def iter_full_parameters(self, _: int) -> Iterator[Sequence[tuple[str, torch.Tensor]]]:
        for name in ("a", "b"):
            self.gathered += 1
            yield [(name, torch.ones(2))]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """References are the values themselves."""
    monkeypatch.setattr(weights, "get", lambda refs, *_: refs)
    monkeypatch.setattr(weights.ray, "put", lambda value: value)


def route(*engines: Any, tensor_parallel: int = 1) -> WeightRoute:
    return WeightRoute(
        engines=engines,
        tensor_parallel=tensor_parallel,
        backend="host_memory",
        deadline_s=1.0,
    )


def test_rank_0_opens_sends_each_bucket_and_closes_on_every_engine():
    engines = [FakeEngine(), FakeEngine()]
    trainer: Any = FakeTrainEngine()
    WeightPublisher(trainer, 0, route(*engines), ("", 0)).publish(7)
    for engine in engines:
        assert [name for name, _ in engine.calls] == [
            *("start_weight_update", "update_weights", "update_weights", "finish_weight_update")
        ]
        assert [bucket["names"] for name, bucket in engine.calls if name == "update_weights"] == [
            *(["a"], ["b"])
        ]
        assert engine.calls[-1][1] == 7


def test_the_other_ranks_gather_and_send_nothing():
    engine, trainer = FakeEngine(), FakeTrainEngine()
    WeightPublisher(trainer, 1, route(engine), ("", 0)).publish(7)  # pyright: ignore[reportArgumentType]
    assert engine.calls == [] and trainer.gathered == 2


def test_an_engine_that_serves_another_version_ends_the_publication():
    trainer: Any = FakeTrainEngine()
    publisher = WeightPublisher(trainer, 0, route(FakeEngine(), FakeEngine(served=6)), ("", 0))
    with pytest.raises(VersionMismatchError, match=r"version 7 was published.*serve \{1: 6\}"):
        publisher.publish(7)


def test_workers_of_the_engines_follow_one_another():
    engines = [FakeEngine(), FakeEngine()]
    client = RolloutClient(route(*engines, tensor_parallel=4))
    client.init_weight_transfer_engine({"rank_offset": 1, "port": 2})
    assert [engine.calls[0][1]["rank_offset"] for engine in engines] == [1, 5]
    assert client.num_workers == 8
