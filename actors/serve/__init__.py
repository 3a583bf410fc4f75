"""Server of a reward model: the reward group behind HTTP (docs/serving.md).

`server.py` starts it on Ray Serve, `queue.py` admits and batches, `http.py` parses and answers.
Begin with `queue.py`, which needs no Ray.

Imports: `groups` and what is below it; `reward`, `rl`, `conf`; not `observe`.
"""
