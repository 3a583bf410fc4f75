"""Statements: what an answer says last, in the form `name = value` that it was asked for.

An answer is hostile text, and it quotes programs: `high_score = 10` states no score, nor does
`score = 10 - 3` say 10. A value is all that stands between its sign and the end of the line.
"""

from __future__ import annotations

import re

_MAX_CHARS = 4096  # of an answer, from its end
_BOXED = r"\\boxed\{\s*(?:\\text\{)?"
_BEFORE, _AFTER = "*_`'\"([{$ \t", "*_`'\")]}$.! \t\r"  # markup and punctuation around a value


def last_statement(text: str, *names: str) -> str:
    r"""The value that an answer states last, without markup; "" where there is none.

    `name = value` or `name: value` where no letter, digit, dot or hyphen is before the name; or
    `\boxed{value}`. An answer of one line without a statement is a value itself.

    >>> [last_statement(t, "best") for t in ("**Best: B**", "best = A\nbest = C.", "(b)")]
    ['B', 'C', 'b']
    >>> last_statement("second_best = B\nThe end.", "best")
    ''
    """
    named = rf"(?<![\w.-])(?:{'|'.join(names)})[*_`'\") \t]{{0,6}}[=:](?!=)"
    head = re.compile(f"{named}|{_BOXED}", re.IGNORECASE)
    # The whole text, so that what is before the last characters is seen.
    found = list(head.finditer(text, max(0, len(text) - _MAX_CHARS)))
    value = text[found[-1].end() :].split("\n", 1)[0] if found else text.strip()
    return "" if "\n" in value else value.lstrip(_BEFORE).rstrip(_AFTER)
