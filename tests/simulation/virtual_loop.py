"""An event loop whose time is simulated, and processes in it that can be killed at any await.

Nothing waits: when no callback is ready, the time jumps to the next timer. Calls that Watchdog makes in threads run in
the loop, each at an instant of its own; one thread runs its calls in order. The same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from asyncio import events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

CURRENT_PROCESS: ContextVar[SimulatedProcess | None] = ContextVar("CURRENT_PROCESS", default=None)
"""None: the world outside Watchdog."""
MIN_CALL_S, MAX_CALL_S = 0.0001, 0.02
"""How long a call in a thread takes."""
MAX_ENDED_TASKS = 1_000
"""Tasks of a process that have ended, before they are forgotten."""
MAX_STEPS_WITHOUT_TIME = 100_000
MAX_AWAITS_TO_END = 100
"""How often a coroutine may await before it ends."""


class SimulatedProcess:
    """One process of Watchdog. Everything it starts inherits its context, and nothing of it runs after its death."""

    def __init__(self, name: str):
        self.name = name
        self.is_alive = True
        self.context: Context = copy_context()
        self.context.run(CURRENT_PROCESS.set, self)
        self.steps_until_death: int | None = None
        """Callbacks until it is killed; None: it is not about to be."""
        self.on_death: Callable[[], None] = lambda: None
        self.stall_until = 0.0
        """Its calls in threads start no earlier than this."""
        self.tasks: list[asyncio.Task[Any]] = []
        """In the order of their creation; those that have ended are removed now and then."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `time()` is the simulated time in seconds since the start."""

    def __init__(self, random: Random):
        super().__init__()
        self._random, self._now = random, 0.0
        self._steps_without_time = 0
        self._selector: Any = self
        self._lanes: dict[Executor, float] = {}
        """Executor with a single thread -> when it is free."""
        self.extra_call_s = 0.0
        """What the call in progress took beyond its own time: it slept."""

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """The machine was suspended."""
        self._now += seconds

    # --- what BaseEventLoop needs of a selector

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation is stuck: nothing will ever happen")
        self._steps_without_time = 0 if timeout else self._steps_without_time + 1
        if self._steps_without_time > MAX_STEPS_WITHOUT_TIME:
            raise RuntimeError("the simulation is stuck: something repeats forever, and takes no time")
        self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    # --- processes

    def start_process(self, process: SimulatedProcess, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.create_task(main, context=process.context.copy())

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, name=name, context=context)
        process = CURRENT_PROCESS.get() if context is None else context.get(CURRENT_PROCESS)
        if process is not None:
            if len(process.tasks) > MAX_ENDED_TASKS:
                process.tasks = [each for each in process.tasks if not each.done()]
            process.tasks.append(task)
        return task

    @staticmethod
    def discard_tasks(process: SimulatedProcess) -> None:
        """End the coroutines of a dead process, and free what they hold. What they do to end has no effect."""
        for task in process.tasks:
            coroutine: Any = task.get_coro()
            for _ in range(MAX_AWAITS_TO_END):
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
                    break
                with suppress(BaseException):  # it awaited again
                    process.context.copy().run(coroutine.close)
        process.tasks.clear()

    def kill(self, process: SimulatedProcess) -> None:
        """Nothing of the process runs any more. What it was in the middle of stays undone."""
        if not process.is_alive:
            return
        process.is_alive = False
        handles: list[Any] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined] # of BaseEventLoop
        for handle in handles:
            if handle._context.get(CURRENT_PROCESS) is process:
                handle.cancel()
        process.on_death()

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle: asyncio.Handle = super()._call_soon(callback, args, context)  # type: ignore[misc] # of BaseEventLoop
        process: SimulatedProcess | None = handle._context.get(CURRENT_PROCESS)  # type: ignore[attr-defined] # as above
        if process is None:
            return handle
        if not process.is_alive:
            handle.cancel()
        elif process.steps_until_death is not None:
            process.steps_until_death -= 1
            if process.steps_until_death == 0:
                outside = copy_context()
                outside.run(CURRENT_PROCESS.set, None)
                super()._call_soon(self.kill, (process,), outside)  # type: ignore[misc] # as above
        return handle

    def call_at(  # type: ignore[override] # the types of its arguments do not matter here
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        process = handle._context.get(CURRENT_PROCESS)  # type: ignore[attr-defined] # of Handle
        if process is not None and not process.is_alive:
            handle.cancel()
            return handle
        heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined] # of BaseEventLoop
        handle._scheduled = True  # type: ignore[attr-defined] # as above
        return handle

    # --- threads

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        process = CURRENT_PROCESS.get()
        start = max(self._now, process.stall_until if process else 0.0) + self._random.uniform(MIN_CALL_S, MAX_CALL_S)
        is_single = isinstance(executor, ThreadPoolExecutor) and executor._max_workers == 1
        if is_single:
            start = max(start, self._lanes.get(executor, 0.0) + 1e-6)
            self._lanes[executor] = start
        self.call_at(start, self._run_call, executor if is_single else None, future, func, args)
        return future

    def _run_call(
        self, executor: Executor | None, future: asyncio.Future[Any], func: Callable[..., Any], args: Any
    ) -> None:
        if future.cancelled():
            return
        self.extra_call_s, value, error = 0.0, None, None
        try:
            value = func(*args)
        except BaseException as e:
            error = e
        done_at = self._now + self.extra_call_s
        if executor is not None:
            self._lanes[executor] = max(self._lanes[executor], done_at)
        self.call_at(done_at + MIN_CALL_S, self._end_call, future, value, error)

    @staticmethod
    def _end_call(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
