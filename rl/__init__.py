"""The algorithm: step, loop, advantage, loss, packing, metrics, and the types of all values.

No process is known here: the groups of actors are protocols (`interfaces.py`), so the step runs in
a unit test. Begin with `step.py`, one RL step on one page; then `loop.py` and `types.py`.

Imports: `conf` only; never ray, vLLM, DeepSpeed or Hydra.
"""
