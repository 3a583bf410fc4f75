"""A command joins the cluster it is given, or starts one and says why it could not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from actors.cluster import cluster as cluster_module
from actors.cluster.cluster import check_cluster, cluster
from actors.plan.checks.inputs import check_files, check_inputs
from conf.errors import EngineError, PlacementError, UserError
from tests.settings import run_config, shipped_config

pytestmark = pytest.mark.unit


def test_a_dashboard_that_does_not_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    def init(**options: Any) -> None:
        tries.append(options["include_dashboard"])
        if options["include_dashboard"]:
            raise RuntimeError("the dashboard failed to start")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(run_config().ray, "name"):
        pass
    assert tries == [True, False]


def test_a_cluster_that_does_not_start_at_all_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no room\nlong trace")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(EngineError, match=r"local cluster: RuntimeError: no room; long trace$"),
        cluster(run_config().ray, "name"),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")
    monkeypatch.setattr(cluster_module, "_dial", lambda _: None)
    with (
        pytest.raises(EngineError, match=r"at 10\.0\.0\.1:1: RuntimeError: no room; long trace$"),
        cluster(run_config().ray, "name"),
    ):
        pass


def test_a_missing_or_wrong_token_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise AuthenticationError("no token was found")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")
    monkeypatch.setattr(cluster_module, "_dial", lambda _: None)
    with (
        pytest.raises(UserError, match=r"at 10\.0\.0\.1:1 wants a token.*RAY_AUTH_TOKEN_PATH"),
        cluster(run_config().ray, "name"),
    ):
        pass


def test_what_can_not_be_joined_is_refused_before_a_run_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    cfg = shipped_config(["++ray.env_from=[NO_SUCH_TOKEN]"])
    with pytest.raises(UserError, match="NO_SUCH_TOKEN"):
        check_inputs(cfg)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match="ray job submit"):
        check_inputs(shipped_config())


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_answers_is_refused_before_ray_tries(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray waits for most of a minute"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"ray.address: .* {address} does not answer"):
            check_files(shipped_config([f"++ray.address={address}"]))
        with (
            pytest.raises(PlacementError, match="does not answer"),
            cluster(run_config([f"++ray.address={address}"]).ray, "name"),
        ):
            pass


def _answer_once(server: socket.socket, answer: bytes) -> None:
    client, _ = server.accept()
    with client:
        client.recv(64)
        client.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "is_head"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", False),  # the dashboard
        (b"", False),  # it hangs up
        (bytes.fromhex("00001804") + bytes(29), True),  # what a GCS and a Ray Client server say
    ],
)
def test_a_server_that_is_no_head_is_refused_before_ray_tries(answer: bytes, is_head: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        answering = threading.Thread(target=_answer_once, args=(server, answer))
        answering.start()
        with nullcontext() if is_head else pytest.raises(UserError, match="is no head of a Ray"):
            check_cluster(run_config([f"++ray.address={address}"]).ray)
        answering.join()


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no such host:6379", "[::1]:1"])
def test_what_is_no_address_is_refused_by_its_key(address: str) -> None:
    with pytest.raises(UserError, match=r"^ray\.address: .* does not answer"):
        cluster_module.check_cluster(run_config([f"++ray.address='{address}'"]).ray)


def test_a_process_ends_after_its_check() -> None:
    """Cut in the C++ code of a library, a thread would abort it, whatever its exit code."""
    code = """if True:
        import sys, time
        import ray
        from actors.cluster.cluster import cluster
        from conf.errors import UserError
        from tests.settings import run_config

        def init(**_):
            raise UserError("refused")

        def check():
            time.sleep(0.5)
            print("checked", flush=True)

        ray.init = init
        try:
            with cluster(run_config().ray, "name", check):
                pass
        except Exception as error:
            print(error, flush=True)
            sys.exit(2)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    said, last = done.stdout.splitlines()
    assert "refused" in said
    assert last == "checked"
    assert done.returncode == 2


@pytest.mark.parametrize("stands_still", [True, False])
def test_a_gcs_that_stands_still_is_ended_with_the_cluster_and_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, stands_still: bool
) -> None:
    ended, done = Event(), Event()

    def end(*, check_alive: bool) -> None:
        assert not check_alive
        ended.set()

    def shutdown() -> None:
        if stands_still:
            assert ended.wait(20.0)
        done.set()

    node = SimpleNamespace(head=True, kill_gcs_server=end)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    monkeypatch.setattr(cluster_module.ray_worker, "_global_node", node)
    monkeypatch.setattr(cluster_module, "_LEAVES_S", 0.05 if stands_still else 60.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(run_config().ray, "name"):
        pass
    assert done.is_set()
    assert ended.is_set() is stands_still


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.1", "ray://head", ":6379", "head:port"])
def test_an_address_without_host_or_port_is_refused_before_ray_is_asked(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"ray\.address: '{address}' is no address of a cluster"):
        check_cluster(run_config().ray)
