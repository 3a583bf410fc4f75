"""Environment variables that actors get by name, so that their values are written nowhere.

Ray shows the `env_vars` of a runtime environment in its dashboard, its state API and its logs. What
`ray.env_from` names travels another way: in a pickled function in the store of the cluster, which
Ray calls in every process of the run before anything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from conf.errors import UserError


def inherited(names: Sequence[str] | None) -> dict[str, str]:
    """The variables of `ray.env_from` as this process has them.

    Raises:
        UserError: naming all that are not set.
    """
    wanted = names or ()
    missing = [name for name in wanted if name not in os.environ]
    if missing:
        raise UserError(
            f"ray.env_from: {', '.join(missing)} not set in the environment of this command "
            "(export what is missing; for a Ray job, where the head of the cluster is started)"
        )
    return {name: os.environ[name] for name in wanted}


def setting(variables: Mapping[str, str]) -> Callable[[], None]:
    """A function that sets these variables in the process that calls it."""
    values = dict(variables)

    def set_inherited_variables() -> None:
        os.environ.update(values)

    return set_inherited_variables
