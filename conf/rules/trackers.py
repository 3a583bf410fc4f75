"""Rules between the keys of trackers."""

from __future__ import annotations

from conf.relation import Relation

TRACKER_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="tracker_rows",
        involves=("tracker_rows", "trackers"),
        rule="completions are shown by wandb and mlflow alone",
        fix="add one of them to trackers=[...], or set tracker_rows=0",
        holds=lambda c: not c.tracker_rows or bool({"wandb", "mlflow"} & {*c.trackers}),
    ),
)
