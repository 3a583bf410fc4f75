"""Reading the Python of data sets: it is parsed and cut, never run."""

from __future__ import annotations

import ast
import warnings

from rl.problems.datasets.rows import RuleError, filled_text


def parsed(value: object) -> ast.Module:
    """The tree of a text that must be Python."""
    code = filled_text(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in strings that are not ours
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RuleError(f"must be Python that parses: {error}", value) from error


def source_of(code: str, node: ast.stmt) -> str:
    """The lines of a top-level statement, decorators included."""
    decorators = node.decorator_list if isinstance(node, _DECORATED) else []
    first = min((decorator.lineno for decorator in decorators), default=node.lineno)
    return "\n".join(code.splitlines()[first - 1 : node.end_lineno])


def is_import(node: ast.stmt) -> bool:
    """True for `import x` and `from x import y`."""
    return isinstance(node, (ast.Import, ast.ImportFrom))


_DECORATED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
