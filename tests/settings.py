"""Settings for tests of every layer: the one place where a test below the commands composes them.

A test of an actor or a judge asks for the configuration of a run as the command line would give
it. How the YAML files are put together is the business of the commands, and stays behind this.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.plan.shipped import with_shipped_models
from conf.schema import Config
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides


def run_config(overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run with these overrides, written as for `launch/train.py`."""
    return compose_config(forced_overrides(overrides))


def shipped_config(overrides: Sequence[str] = ()) -> Config:
    """The same, with the shipped models found and texts read."""
    return with_shipped_models(run_config(overrides))
