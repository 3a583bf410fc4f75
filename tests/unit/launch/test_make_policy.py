"""The policy command: tasks that a level does not have are refused before anything starts."""

from __future__ import annotations

import pytest

from conf.commands.make_policy import MakePolicyArgs, PolicyTask, check_tasks
from conf.errors import UserError
from conf.schema import ProblemLevel

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("level", "tasks"), [("flat", ("code", "suite")), ("branchy", ("trace",)), ("branchy", ())]
)
def test_a_task_that_the_level_has_not_is_refused(
    level: ProblemLevel, tasks: tuple[PolicyTask, ...]
) -> None:
    with pytest.raises(UserError, match=f"tasks={','.join(tasks)}: level={level} has code"):
        check_tasks(MakePolicyArgs(output="x", level=level, tasks=tasks))


def test_the_tasks_of_a_level_are_taken() -> None:
    check_tasks(MakePolicyArgs(output="x"))
    check_tasks(MakePolicyArgs(output="x", level="branchy", tasks=("code", "suite")))
