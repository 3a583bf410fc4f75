"""Ray cluster of a command: joining or starting it, placement, deadlines, signals, gauges.

Every wait for an actor goes through `deadlines.py`. Begin with `session.py` and `bundles.py`.

Imports: `reward`, `rl`, `conf`; neither `engines` nor anything above.
"""
