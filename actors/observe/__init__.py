"""Observation of a run: metric sinks, trackers and the Grafana dashboard (docs/monitoring.md).

`watchers.py` hands each step's metrics to all sinks; begin there. A new sink is an entry of
`TRACKERS` in `trackers.py`.

Imports: `groups` and what is below it; `reward`, `rl`, `conf`; not `serve`.
"""
