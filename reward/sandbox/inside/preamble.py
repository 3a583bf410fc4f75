"""What the sites that programs of the function form are written for import before them.

LeetCode and the graders after it run a method under these imports, and its reference solutions use
them without a word. The names of builtins stay what they are, and whatever a program defines wins.
Standard library only: this is loaded by the fork server, once for all programs.
"""

from __future__ import annotations

import builtins
import functools
from typing import Any

# The modules come last: `bisect` and `random` are also functions of theirs.
PREAMBLE = """\
from typing import *
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
from string import *
from operator import *
from math import *
from random import *
from re import *
from copy import *
from datetime import date, timedelta
import array, bisect, collections, copy, datetime, functools, heapq, itertools, json, math
import operator, random, re, string, sys, time, typing
try:
    from sortedcontainers import SortedDict, SortedList, SortedSet
except ImportError:
    pass
"""


@functools.cache
def preamble_builtins() -> dict[str, Any]:
    """Python's builtins and, behind them, the names that the preamble gives.

    As builtins they cost a program nothing: to bind each would copy the pages that they lie on.
    """
    names: dict[str, Any] = {}
    exec(compile(PREAMBLE, "<preamble>", "exec", dont_inherit=True), names)
    return names | vars(builtins)
