"""Actor handles, typed: the remote methods of each kind of actor, with arguments and results.

Ray's own handles are dynamic; `fleet` casts each once, when it creates the actor. `call` reaches
all actors of a group: `await call(handles, lambda handle: handle.publish.remote(3), ...)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from actors.cluster.deadlines import wait_for_all

if TYPE_CHECKING:  # a shard without a model loads no torch for the types of others
    from actors.engines.forward_check import ForwardCheck
    from actors.engines.specs import TrainSpec, WeightBackend
    from conf.errors import ProjectError
    from reward.judges.judge import Answers, Judged
    from rl.loss import LossDenominators, Objective
    from rl.parcels import Parcel
    from rl.types import Ask, FloatArray, Prompt, PromptGroup, Score, UpdateReport

P = ParamSpec("P")
T = TypeVar("T")
Result_co = TypeVar("Result_co", covariant=True)
Handle = TypeVar("Handle")


class Method(Protocol[P, Result_co]):
    """A method of an actor."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Result_co]:
        """Send the call; the result can be awaited."""
        ...


class Stream(Protocol[P, Result_co]):
    """A method of an actor that yields; its items come as they are made."""

    def options(self, *, num_returns: str) -> Stream[P, Result_co]:
        """With `num_returns="streaming"`: see Ray."""
        ...

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Awaitable[Result_co]]:
        """Send the call."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine serves after an update of its weights."""

    version: int
    checksum: int  # of what it received through host memory


class EngineHandle(Protocol):
    """An actor that owns an inference engine."""

    ready: Method[[], str]
    sleep: Method[[], None]
    wake: Method[[], None]


class RolloutHandle(EngineHandle, Protocol):
    """A `actors.groups.rollout.RolloutActor`."""

    alive: Method[[], None]
    generate: Stream[[Sequence[Ask], int], PromptGroup]
    init_weight_transfer_engine: Method[[Mapping[str, Any]], None]
    start_weight_update: Method[[], None]
    update_weights: Method[[Any], None]  # a bucket, or a reference to one
    finish_weight_update: Method[[int], Served]


class JudgeHandle(Protocol):
    """A `actors.groups.reward.JudgeActor`: a shard without an engine."""

    ready: Method[[], str]
    judge: Method[[Sequence[Answers], Sequence[str]], tuple[list[Judged], float]]


class RewardModelHandle(EngineHandle, JudgeHandle, Protocol):
    """A `actors.groups.reward.RewardModelActor`: a shard with the reward model."""

    judge_many: Method[[Sequence[tuple[Prompt, Sequence[str]]]], list[Judged | ProjectError]]
    score_problems: Method[[Sequence[tuple[str, Sequence[str | None]]]], list[tuple[Score, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRoute:
    """The way of weights from the ranks to the rollout engines."""

    engines: Mapping[str, RolloutHandle]  # by name
    tensor_parallel: int  # GPUs of one engine
    backend: WeightBackend
    deadline_s: float  # of each call


class TrainHandle(Protocol):
    """An `actors.groups.train_actor.TrainActor`: one ZeRO-3 rank."""

    address: Method[[], tuple[str, int]]
    start: Method[[TrainSpec, str, int], None]
    connect: Method[[WeightRoute, str, int], None]
    self_check: Method[[int], ForwardCheck]
    outputs: Method[[Sequence[Parcel]], tuple[FloatArray, ...]]
    update: Method[
        [Sequence[Parcel], tuple[FloatArray, ...] | None, Objective, LossDenominators],
        UpdateReport,
    ]
    publish: Method[[int], dict[str, str]]
    give_way: Method[[], None]
    save_hf: Method[[str], None]
    save_adapter: Method[[str], None]
    save_checkpoint: Method[[str], None]
    load_checkpoint: Method[[str], None]
    sees: Method[[str, str], bool]
    partition_report: Method[[], dict[str, int]]


async def call(
    handles: Sequence[Handle], ask: Callable[[Handle], Awaitable[T]], deadline_s: float, what: str
) -> list[T]:
    """The results of one call to each actor, under one deadline; the first failure wins."""
    return await wait_for_all([ask(handle) for handle in handles], deadline_s, what)
