"""A publication: the order of its calls, who makes them, and a version that is not served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from actors.groups import weights
from actors.groups.handles import Served, WeightRoute
from actors.groups.weights import RolloutClient, WeightPublisher, checksum, host_bucket
from conf.errors import LostActorError, VersionMismatchError

pytestmark = pytest.mark.unit


class FakeEngine:
    """A rollout actor that notes down each call, and serves what it is told, or something else."""

    def __init__(self, served: int | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._served = served
        self._checksum = 0

    def __getattr__(self, name: str) -> Any:
        return _Method(name, self)

    def answer(self, name: str, argument: Any) -> Any:
        self.calls.append((name, argument))
        if name == "update_weights":
            self._checksum = checksum(argument, self._checksum)
        if name != "finish_weight_update":
            return None
        return Served(argument if self._served is None else self._served, self._checksum)


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
        engines={f"rollout-{index}": engine for index, engine in enumerate(engines)},
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
    with pytest.raises(
        VersionMismatchError, match=r"version 7 was published.*serve \{'rollout-1': 6\}"
    ):
        publisher.publish(7)


def test_an_engine_that_received_something_else_ends_the_publication():
    engine, trainer = FakeEngine(), FakeTrainEngine()
    engine._checksum = 1  # as if a bucket had come before
    with pytest.raises(VersionMismatchError, match="rollout-0 received are not those"):
        WeightPublisher(trainer, 0, route(engine), ("", 0)).publish(7)  # pyright: ignore[reportArgumentType]


def test_an_engine_that_is_lost_on_the_way_is_reported_and_the_others_get_their_weights(
    monkeypatch: pytest.MonkeyPatch,
):
    """Every rank goes on to the last bucket, because gathering one is a collective."""

    def get(value: Any, _: float, what: str) -> Any:
        if "loading a bucket" in what and "rollout-0" in what:
            raise LostActorError(f"{what} failed")
        return value

    monkeypatch.setattr(weights, "get", get)
    engines, trainer = [FakeEngine(), FakeEngine()], FakeTrainEngine()
    publisher = WeightPublisher(trainer, 0, route(*engines), ("", 0))  # pyright: ignore[reportArgumentType]
    lost = publisher.publish(7)
    assert lost == {
        "rollout-0": "loading a bucket of weights of policy version 7 on rollout-0 failed"
    }
    assert [name for name, _ in engines[0].calls] == ["start_weight_update", "update_weights"]
    assert engines[1].calls[-1] == ("finish_weight_update", 7)
    assert trainer.gathered == 2


def test_workers_of_the_engines_follow_one_another():
    engines = [FakeEngine(), FakeEngine()]
    client = RolloutClient(route(*engines, tensor_parallel=4))
    client.init_weight_transfer_engine({"rank_offset": 1, "port": 2})
    assert [engine.calls[0][1]["rank_offset"] for engine in engines] == [1, 5]
    assert client.num_workers == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_travel_once_under_both_names(dtype: torch.dtype):
    tied, norm = torch.arange(6, dtype=dtype).reshape(2, 3), torch.ones(3, dtype=dtype)
    bucket = host_bucket([("embed", tied), ("norm", norm), ("head", tied)])
    assert sum(array.nbytes for array in bucket["arrays"]) == 9 * tied.element_size()
    received = {
        name: torch.from_numpy(bucket["arrays"][place]).view(dtype).reshape(shape)
        for name, shape, place in zip(
            bucket["names"], bucket["shapes"], bucket["places"], strict=True
        )
    }
    assert [*received] == ["embed", "norm", "head"]
    assert received["embed"].equal(tied)
    assert received["head"].equal(tied)
    assert received["norm"].equal(norm)
