"""Rules for arguments of what comes from outside this tree: nothing else reads them."""

from __future__ import annotations

from operator import attrgetter

from conf.keys import is_import_path
from conf.relation import Relation


def _read_by(args: str, named: str, what: str) -> Relation:
    """Arguments are given only where what reads them is named by its path."""
    given, path = attrgetter(args), attrgetter(named)
    return Relation(
        path=args,
        involves=(args, named),
        rule=f"{args} are those of {what} from outside this tree",
        fix=f"leave them out, or give {named}=my_package.module:make",
        holds=lambda config: not given(config) or is_import_path(path(config)),
    )


OUTSIDE_JUDGE_RELATIONS = (_read_by("reward.args", "reward.kind", "a judge"),)
OUTSIDE_RELATIONS = (
    _read_by("reward.rule_args", "reward.rule", "a rule of extraction"),
    _read_by("algorithm.args", "algorithm.kind", "an objective"),
    _read_by("data.args", "data.kind", "problems"),
)
