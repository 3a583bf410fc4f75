"""Engines inside the actors: vLLM samples and scores, DeepSpeed trains.

The only folder that imports vLLM and DeepSpeed; it does not import Ray itself. Engines run in
the actors' processes, never in the driver. Begin with `vllm_engine.py` and `deepspeed_engine.py`.

Imports: `reward`, `rl`, `conf`; neither `cluster` nor anything above.
"""
