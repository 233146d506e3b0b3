"""Threads parse Python source one at a time, where Python cannot do it otherwise."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from watchdog.source_parsing import make_ast_parse_run_in_one_thread_at_a_time, serialize_calls

SOURCE = "\n".join(f"def f{number}(a, b=[{number}, (1, 2)]): return {{a: [b, a + b]}}" for number in range(20))
MAX_INTERRUPTION_S = 0.2
"""For how long an interrupted thread lets another one parse, if that one can."""
MAX_INTERRUPTIONS = 50
OLD_PYTHON, NEW_PYTHON = (3, 11, 7), (3, 11, 8)


@pytest.fixture(autouse=True)
def plain_parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ast.Module]:
    """`ast.parse` as Python has it."""
    plain: Callable[..., ast.Module] = getattr(ast.parse, "__wrapped__", ast.parse)
    monkeypatch.setattr(ast, "parse", plain)
    return plain


@contextmanager
def call_at_each_garbage_collection(call: Callable[[], object]) -> Iterator[None]:
    """And collect as often as possible."""

    def callback(*_: object) -> None:
        call()

    thresholds = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)


def test_a_thread_may_parse_while_another_one_does() -> None:
    """The garbage collector interrupts a thread that parses, and another thread, with more calls on its stack, parses
    meanwhile. Python 3.11.7 counts the depth of both in one variable: without the lock, the first raises
    SystemError."""
    ast.parse = serialize_calls(ast.parse)
    threads: list[Thread] = []
    parsed: list[ast.Module] = []

    def parse_below(call_count: int) -> None:
        if call_count:
            parse_below(call_count - 1)
        else:
            parsed.append(ast.parse(SOURCE))

    def let_another_thread_parse() -> None:
        if len(threads) < MAX_INTERRUPTIONS and not any(thread.is_alive() for thread in threads):
            threads.append(Thread(target=parse_below, args=(20,)))
            threads[-1].start()
            threads[-1].join(MAX_INTERRUPTION_S)

    with call_at_each_garbage_collection(let_another_thread_parse):
        parsed.append(ast.parse(SOURCE))
    for thread in threads:
        thread.join(30)
    assert len(parsed) == len(threads) + 1 > 1
    assert len({ast.dump(module) for module in parsed}) == 1


def test_only_a_python_that_needs_it_waits(monkeypatch: pytest.MonkeyPatch, plain_parse: object) -> None:
    monkeypatch.setattr(sys, "version_info", NEW_PYTHON)
    make_ast_parse_run_in_one_thread_at_a_time()
    assert ast.parse is plain_parse
    monkeypatch.setattr(sys, "version_info", OLD_PYTHON)
    make_ast_parse_run_in_one_thread_at_a_time()
    waiting = ast.parse
    assert waiting is not plain_parse
    make_ast_parse_run_in_one_thread_at_a_time()
    assert ast.parse is waiting, "once"
    assert ast.dump(ast.parse("a = 1", mode="exec")) == ast.dump(ast.parse("a = 1"))
