"""Reward-model training, its data: preference pairs as trainable sequences, and the card.

The loss is in `rl/loss.py`, the training itself in `actors/stages/rm_training.py`. Begin with
`pair_batches.py`.

Imports: `pairs`, `verify` and what is below them; `rl` and `conf`.
"""
