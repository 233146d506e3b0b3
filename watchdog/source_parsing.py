"""Lets one thread at a time parse Python source, for versions of Python where two threads cannot.

Before Python 3.11.8, `ast.parse` in two threads at once may raise "SystemError: AST constructor recursion depth
mismatch" in either (https://github.com/python/cpython/issues/106905). Libraries call it where it is not expected:
pydantic for the docstrings of fields, and `inspect.signature` for the default of a field.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
FIRST_PYTHON_WITH_CONCURRENT_PARSING = (3, 11, 8)


def make_ast_parse_run_in_one_thread_at_a_time() -> None:
    """Let only one thread at a time run `ast.parse`, if this version of Python needs that. May be called repeatedly."""
    if sys.version_info < FIRST_PYTHON_WITH_CONCURRENT_PARSING and not hasattr(ast.parse, "__wrapped__"):
        ast.parse = serialize_calls(ast.parse)


def serialize_calls(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Returns a function that only one thread at a time runs."""
    lock = RLock()

    @wraps(function)
    def call_function_while_holding_lock(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with lock:
            return function(*args, **kwargs)

    return call_function_while_holding_lock
