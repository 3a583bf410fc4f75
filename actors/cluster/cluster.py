"""The Ray cluster of a command: joined, or started on this machine and ended with it.

Without engines, so that a command that has none loads neither torch nor transformers.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from threading import Thread, Timer
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.exceptions import AuthenticationError

from actors.cluster.environment import inherited, setting
from actors.cluster.leftovers import marked_session, temporary_files_in
from actors.cluster.signals import held_signals, stopped_by_signals
from conf.errors import EngineError, PlacementError, UserError, in_one_line
from conf.schema import RayConfig

logger = logging.getLogger(__name__)

_ANSWERS_S = 3.0  # longest wait for a cluster to accept a connection
_FRAME = bytes(3) + b"\x04" + bytes(5)  # of HTTP/2: empty settings, with which each side begins
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _FRAME  # of a client, RFC 9113 section 3.4
_LEAVES_S = 30.0  # Ray ends its processes within 15 s, or will not
_end_with_parent = ray_utils.set_kill_on_parent_death_linux


def starts_ray(cfg: RayConfig) -> bool:
    """Whether a run starts a Ray of its own on this machine, because it is given none to join."""
    return cfg.cluster is None


@contextmanager
def cluster(
    cfg: RayConfig, namespace: str, check: Callable[[], None] | None = None
) -> Generator[None]:
    """The cluster of `ray.address` or RAY_ADDRESS, or one of this machine's own for the body.

    `check` is done in a thread beside its start; what it raises is raised before the body.

    Raises:
        UserError: when the address is not one to join, its token is missing or wrong, or a variable
            of `ray.env_from` is missing.
        EngineError: when Ray can do neither.
        StoppedError: in the body, when a signal ends it.
    """
    checked = _in_thread(check or _nothing)
    with marked_session() if starts_ray(cfg) else nullcontext() as own:
        try:
            with held_signals(), temporary_files_in(own) if own else nullcontext():
                _connect(cfg, namespace)
            with stopped_by_signals():
                checked.result()
                yield
        finally:
            _leave()


def _leave() -> None:
    """Leave the cluster, and end one of our own with its processes.

    Ray waits for its GCS meanwhile, for minutes where that stands still: ours is ended then.
    """
    watch = Timer(_LEAVES_S, _end_gcs)
    watch.daemon = True
    watch.start()
    try:
        ray.shutdown()
    finally:
        watch.cancel()


def _end_gcs() -> None:
    node = ray_worker._global_node
    if node is not None and node.head:
        logger.warning("Ray's GCS has not answered for %g s; it is killed", _LEAVES_S)
        node.kill_gcs_server(check_alive=False)


def is_own() -> bool:
    """Whether the cluster that this process is connected to ends with it."""
    node = ray_worker._global_node
    return node is not None and node.head


def has_lost_gcs() -> bool:
    """Whether the GCS of a cluster of our own has ended.

    Whatever asks it then waits for a minute, in which nothing else of this process runs, and is
    ended by Ray.
    """
    if not is_own():
        return False
    node: Any = ray_worker._global_node
    servers = node.all_processes.get(ray_constants.PROCESS_TYPE_GCS_SERVER, [])
    return any(server.process.poll() is not None for server in servers)


def _in_a_group_of_its_own() -> None:
    """What each process of our own cluster does first; it ends with this one all the same.

    A signal to the process group of the command, as `timeout` and shells send it, would end them
    beneath a run that still has a step to save.
    """
    _end_with_parent()
    os.setpgid(0, 0)


def _nothing_of(_: object) -> None:
    """Set no handler."""


def _nothing() -> None:
    """The check of a command that has done its own."""


def _in_thread(work: Callable[[], None]) -> Future[None]:
    """Start `work` in a thread.

    The process ends after it: a thread that the interpreter cuts in the C++ code of a library
    aborts the process, and its exit code with it.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result raises it
            done.set_exception(error)

    Thread(target=run, name="check").start()
    return done


def check_cluster(cfg: RayConfig) -> None:
    """Refuse what `cluster` would refuse, before anything is touched.

    Raises:
        UserError: when the address is not one to join, or a variable of `ray.env_from` is missing.
        PlacementError: when nobody answers at the address.
    """
    address = cfg.cluster
    if address is not None and address.startswith(("http://", "https://")):
        raise UserError(
            f"ray.address: {address} takes jobs, and is not one to join (submit the command with "
            "`ray job submit`, or give ray.address=auto on a machine of the cluster)"
        )
    inherited(cfg.env_from)
    if address is not None:
        _dial(address)


def _dial(address: str) -> None:
    """Refuse an address at which nobody answers: Ray itself would try for the most of a minute."""
    if address in ("auto", "local"):  # Ray knows at once
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(
            f"ray.address: {address!r} is no address of a cluster; give the HOST:PORT of its head, "
            "ray://HOST:PORT, or auto on a machine of the cluster (ray.address or RAY_ADDRESS)"
        )
    where = (host.strip("[]"), int(port))
    try:
        with socket.create_connection(where, timeout=_ANSWERS_S) as connection:
            other = "RAY_USE_TLS" not in os.environ and _answers_otherwise(connection)
    except (OSError, OverflowError, UnicodeError) as error:  # no port, or no name of a host
        raise PlacementError(
            f"ray.address: the cluster at {address} does not answer ({error}); "
            "start it, or give the HOST:PORT of its head (ray.address or RAY_ADDRESS)"
        ) from error
    if other:
        raise UserError(
            f"ray.address: what answers at {address} is no head of a Ray cluster; give the port "
            "that `ray start --head` took (6379 if none was given), or with ray:// that of Ray "
            "Client (10001); the dashboard and other servers have ports of their own"
        )


def _answers_otherwise(connection: socket.socket) -> bool:
    """Whether the other side speaks, and not gRPC as Ray does: Ray would try for half a minute."""
    try:
        connection.sendall(_PREFACE)
        answer = connection.recv(len(_FRAME))
    except OSError:  # it says nothing: Ray knows better what to wait for
        return False
    return answer[3:4] != _FRAME[3:4]


def _connect(cfg: RayConfig, namespace: str) -> None:
    check_cluster(cfg)
    address = cfg.cluster
    # In a Ray job this is added to the runtime environment of the job: its working directory stays,
    # and of a variable that both name ours is taken.
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    runtime_env: dict[str, Any] = {"env_vars": dict(cfg.env)}
    if variables := inherited(cfg.env_from):
        runtime_env["worker_process_setup_hook"] = setting(variables)
    options: dict[str, Any] = {
        "namespace": cfg.namespace or namespace,
        "runtime_env": runtime_env,
        "log_to_driver": False,
        "logging_level": logging.WARNING,
    }
    if address is None:
        # A cluster of one process tree on the loopback interface: nobody else can reach it.
        _stay_on_loopback()
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        options |= {"dashboard_host": "127.0.0.1", "_node_ip_address": "127.0.0.1"}
        options["include_dashboard"] = True
    else:
        options["address"] = address
    what = f"the cluster at {address}" if address else "a local cluster"
    ray_utils.set_sigterm_handler = _nothing_of  # ours hold the signals meanwhile
    ray_utils.set_kill_on_parent_death_linux = _in_a_group_of_its_own
    try:
        ray.init(**options)
    except AuthenticationError as error:
        raise UserError(
            f"{what} wants a token, and this process has none or another one; "
            "export RAY_AUTH_TOKEN_PATH=FILE, or run the command where Ray has the token "
            "(~/.ray/auth_token). RAY_AUTH_MODE=disabled is right only for a cluster without one"
        ) from error
    except Exception as error:
        if address is None and _without_dashboard(options):
            return
        raise EngineError(f"Ray could not reach or start {what}: {in_one_line(error)}") from error


def _stay_on_loopback() -> None:
    """Let Ray keep the address 127.0.0.1.

    It would take that of a network interface instead, so that other machines can join, and its
    servers would listen on all interfaces; where it has no clusters, as on macOS, it does not.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes it starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # read when Ray was imported


def _without_dashboard(options: Mapping[str, Any]) -> bool:
    """Try again without the dashboard: on a busy machine it alone may miss Ray's start deadline."""
    ray.shutdown()  # what the first try has left
    try:
        ray.init(**{**options, "include_dashboard": False})
    except Exception:
        logger.debug("Ray did not start without its dashboard either", exc_info=True)
        return False
    logger.warning("Ray runs without its dashboard, which did not start in time")
    return True
