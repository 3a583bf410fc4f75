"""Rules for arguments of what comes from outside this tree: nothing else reads them."""

from __future__ import annotations

from conf.keys import is_import_path
from conf.relation import Relation

OUTSIDE_JUDGE_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="reward.args",
        involves=("reward.args", "reward.kind"),
        rule="reward.args are those of a judge from outside this tree",
        fix="leave them out, or give reward.kind=my_package.module:make",
        holds=lambda c: not c.reward.args or is_import_path(c.reward.kind),
    ),
)
OUTSIDE_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="reward.rule_args",
        involves=("reward.rule_args", "reward.rule"),
        rule="reward.rule_args are those of a rule from outside this tree",
        fix="leave them out, or give reward.rule=my_package.module:name",
        holds=lambda c: not c.reward.rule_args or is_import_path(c.reward.rule),
    ),
    Relation(
        path="algorithm.args",
        involves=("algorithm.args", "algorithm.kind"),
        rule="algorithm.args are those of an objective from outside this tree",
        fix="leave them out, or give algorithm.kind=my_package.module:make",
        holds=lambda c: not c.algorithm.args or is_import_path(c.algorithm.kind),
    ),
    Relation(
        path="data.args",
        involves=("data.args", "data.kind"),
        rule="data.args are those of problems from outside this tree",
        fix="leave them out, or give data.kind=my_package.module:make",
        holds=lambda c: not c.data.args or is_import_path(c.data.kind),
    ),
)
