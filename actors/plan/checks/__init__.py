"""Checks before anything expensive starts: inputs, prompts, texts, engines, what is written at the
end.

May import `actors.groups`, `actors.engines` and what lies below `actors`. Begin with `inputs`.
"""
