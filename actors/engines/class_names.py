"""Class names as the installed vLLM has them, where it does not find those of transformers."""

from __future__ import annotations

# vLLM takes a classifier whose language model it does not find by name for one of the backbone, and
# then does not know the names of the tensors: `findings/gemma3_classifier.sh`.
_ENGINE_NAMES = {"Gemma3TextForSequenceClassification": "Gemma3ForSequenceClassification"}


def engine_name(architecture: str) -> str:
    """The architecture that vLLM is told for one of transformers.

    >>> engine_name("Gemma3TextForSequenceClassification")
    'Gemma3ForSequenceClassification'
    """
    return _ENGINE_NAMES.get(architecture, architecture)
