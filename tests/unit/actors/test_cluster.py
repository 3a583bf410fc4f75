"""A command joins the cluster it is given, or starts one and says why it could not."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from actors.cluster import cluster
from launch.cli import compose_config
from rl.errors import EngineError

pytestmark = pytest.mark.unit


def test_a_dashboard_that_does_not_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    def init(**options: Any) -> None:
        tries.append(options["include_dashboard"])
        if options["include_dashboard"]:
            raise RuntimeError("the dashboard failed to start")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(compose_config([]), "name"):
        pass
    assert tries == [True, False]


def test_a_cluster_that_does_not_start_at_all_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no room\nlong trace")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(EngineError, match=r"start a local cluster: no room$"),
        cluster(compose_config([]), "name"),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")
    with (
        pytest.raises(EngineError, match=r"the cluster at 10\.0\.0\.1:1: no room$"),
        cluster(compose_config([]), "name"),
    ):
        pass
