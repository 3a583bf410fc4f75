"""Benches of a training step: its parts, its engines alone, and what else trains such a policy."""
