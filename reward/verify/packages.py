"""Packages that programs import: which are installed, and whether a missing one ended a program.

A program that imports what is not installed has not been judged: with the package it may be right.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence

# Beside the standard library, what solutions and tests of the public sets import most (KodCode,
# DeepCoder, TACO, LeetCode, HumanEval+ and MBPP+), by the name that is imported.
USUAL = (
    *("numpy", "scipy", "pandas", "sympy", "networkx", "sortedcontainers", "pytest", "sklearn"),
    *("matplotlib", "requests", "bs4", "regex", "yaml", "dateutil", "torch", "gmpy2", "PIL"),
)
# Modules of Python 2's standard library that Python 3 has under another name or not at all: a
# program that imports one is not a Python 3 program.
_PYTHON_2 = frozenset(
    (
        *("__builtin__", "BaseHTTPServer", "ConfigParser", "Cookie", "HTMLParser", "Queue"),
        *("StringIO", "Tkinter", "UserDict", "UserList", "cPickle", "cStringIO", "commands"),
        *("cookielib", "httplib", "md5", "sets", "sha", "thread", "urllib2", "urlparse"),
        "xmlrpclib",
    )
)
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def installed() -> dict[str, bool]:
    """For each usual package, whether programs can import it.

    >>> installed()["numpy"]
    True
    """
    return {name: importlib.util.find_spec(name) is not None for name in USUAL}


def missing_package(detail: str, sources: Sequence[str]) -> str | None:
    """The missing package that ended a program or its tests, if one did.

    `detail` is how it ended; `sources` are the program and its tests, one of which must import the
    package. A module that Python itself has, or had in version 2, is none.

    >>> missing_package("ModuleNotFoundError: No module named 'mip'", ["import mip"])
    'mip'
    """
    match = _MISSING.search(detail)
    if match is None:
        return None
    name = match[1].partition(".")[0]
    if name in sys.stdlib_module_names or name in _PYTHON_2:
        return None
    if "." in match[1] and importlib.util.find_spec(name) is not None:
        return None  # the package is there, and has no such part
    imports = re.compile(rf"^\s*(?:from\s+|import\s+(?:[\w. ]+,\s*)*){name}\b", re.MULTILINE)
    return name if any(map(imports.search, sources)) else None
