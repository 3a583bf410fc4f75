"""Report of a run: `report.html`, one offline page with curves, times and every completion.

`record.py` reads the run, `steps.py` and `sources.py` pack rollouts, `plots.py` draws, `page.py`
puts all of it together, `live.py` writes it beside a run. Begin with `page.py`; docs/report.md.

Imports: `conf`, and the modules of `rl`.
"""
