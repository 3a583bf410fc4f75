"""Jobs of a sweep as Ray jobs of a cluster, side by side as far as its nodes hold their actors."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from actors.cluster.bundles import check_fits, run_bundles
from conf.errors import EngineError, PlacementError, last_error
from conf.schema import Config

logger = logging.getLogger(__name__)


class RayJob:
    """A job that has been submitted."""

    def __init__(self, client: JobSubmissionClient, submission_id: str) -> None:
        self._client = client
        self._id = submission_id

    def poll(self) -> int | None:
        """The exit code of its command; None while it waits or runs."""
        details = self._client.get_job_info(self._id)
        if not details.status.is_terminal():
            return None
        if details.status == JobStatus.SUCCEEDED:
            return 0
        return details.driver_exit_code or 1  # one that never started, or was stopped, has none

    def stop(self) -> None:
        """Ask Ray to stop it; Ray kills what does not end in time."""
        self._client.stop_job(self._id)

    def kill(self) -> None:
        """Log the job's name: Ray has no stronger way to end it."""
        logger.warning("Ray job %s does not end; look at it in the dashboard", self._id)

    def last_line(self) -> str:
        """The last line of its errors, or else of its output."""
        return last_error(self._client.get_job_logs(self._id).splitlines())


class RayJobs:
    """Submits jobs to the cluster at `address`.

    The resources of jobs that this object has started count from their submission on, long before
    their actors exist. Those of other people's jobs do not: for them a run waits by itself, up to
    `placement.ready_timeout_s`.
    """

    def __init__(self, address: str, script: str, runtime_env: Mapping[str, Any]) -> None:
        """`script` is relative to the working directory of `runtime_env`.

        Raises:
            EngineError: when the cluster takes no jobs.
        """
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"the cluster at {address} takes no jobs: {reason[0]}") from error
        self._address = address
        self._script = script
        self._runtime_env = dict(runtime_env)

    def fits(self, config: Config, running: Sequence[Config]) -> bool:
        """Whether the nodes hold the actors of this run beside those of the others."""
        return fit_together([*running, config], self._nodes())

    def start(self, overrides: Sequence[str], directory: Path) -> RayJob:
        """Submit a run; its output is kept by Ray."""
        name = f"{directory.parent.name}/{directory.name}"
        submission_id = self._client.submit_job(
            entrypoint=shlex.join(["python", self._script, *overrides]),
            runtime_env=self._runtime_env,
            metadata={"job_name": name},  # what the dashboard shows
        )
        return RayJob(self._client, submission_id)

    def _nodes(self) -> list[Mapping[str, float]]:
        # Ray's own type of a node has no fields for a type checker.
        nodes: list[Any] = list(list_nodes(self._address, filters=[("state", "=", "ALIVE")]))
        return [node.resources_total for node in nodes]


def fit_together(configs: Sequence[Config], nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether the nodes hold the actors of all these runs at once."""
    wanted = [bundle for config in configs for bundle in run_bundles(config)]
    try:
        check_fits(wanted, nodes, "sweep")
    except PlacementError:
        return False
    return True
