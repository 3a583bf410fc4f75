"""Ray jobs: what differs for a command under `ray job submit --working-dir . -- ...`.

Such a command runs in a copy of the submitted tree that Ray deletes after the job. Outputs with a
relative path would go with it, so they belong below a directory that stays: `CODESCALER_HOME`, by
default `~/codescaler`, on the machine that runs the command (the head of the cluster).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from conf.schema import Config

OUTPUT_ROOT = "CODESCALER_HOME"
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray gives to the command of a job


def job_runtime_env() -> Mapping[str, Any] | None:
    """The runtime environment of the Ray job that this process belongs to; None outside of one."""
    text = os.environ.get(_JOB_CONFIG)
    if text is None:
        return None
    return cast("Mapping[str, Any]", json.loads(text).get("runtime_env") or {})


def with_lasting_outputs(config: Config) -> Config:
    """The same run, but no output of it lies in the copy of the tree that a Ray job works in."""
    runtime_env = job_runtime_env()
    if runtime_env is None or "working_dir" not in runtime_env:
        return config
    loop = config.loop
    export_dir = loop.export_dir and _lasting(loop.export_dir)
    return replace(
        config,
        output_dir=_lasting(config.output_dir),
        loop=replace(loop, cache_dir=_lasting(loop.cache_dir), export_dir=export_dir),
    )


def _lasting(path: str) -> str:
    root = os.environ.get(OUTPUT_ROOT) or "~/codescaler"
    return str(Path(root).expanduser() / path)  # an absolute path stays what it is
