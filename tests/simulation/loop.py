"""An asyncio event loop on a virtual clock: hours pass in no time, and the same program does the same in every run.

One queue holds everything that has a time: packets on links, timers of coroutines, contacts of a schedule. What threads
would do is done on the spot and takes no time. A `Life` is what its owner's power switch ends: no coroutine that was
started in it goes on afterwards, not even to clean up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_CANCELS_MAX = 100


class Life:
    """One node from power-on to power-off."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.is_over = False
        self.missed: list[asyncio.Handle] = []
        self._loop = loop

    def end(self) -> None:
        self.is_over = True
        self._loop.ended.append(self)


LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """`with loop:` makes it the running loop of the thread, so that plain test code may start tasks and run them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0  # how often something happened whose time had come
        self._ready: deque[asyncio.Handle] = deque()
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.ended: list[Life] = []
        self._is_stopping = False
        self._errors: list[BaseException] = []

    # --- time

    def time(self) -> float:
        return self.now

    def at(self, when: float, action: Callable[..., object], *args: Any) -> None:
        """Calls `action` at a time; what has the same time happens in the order in which it was asked for."""
        heapq.heappush(self._events, (when, next(self._order), action, args))

    def run_until(self, end: float | None) -> None:
        """Lets time pass until `end` or `stop`; without an end until nothing is left to happen.

        What a callback raised and nobody caught is raised here.
        """
        ready, events, heappop = self._ready, self._events, heapq.heappop
        self._is_stopping = False
        while True:
            while ready:
                _run(ready.popleft())
            if self._errors:
                raise self._errors.pop()
            if self._is_stopping:
                return
            if not events or (end is not None and events[0][0] > end):
                break
            when, _, action, args = heappop(events)
            self.turns += 1
            if when > self.now:
                self.now = when
            action(*args)
        if end is not None:
            self.now = max(self.now, end)

    def stop(self) -> None:
        self._is_stopping = True

    # --- asyncio

    def __enter__(self) -> VirtualLoop:
        _set_running_loop(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wake_the_dead()
            for _ in range(_CANCELS_MAX):
                self._errors.clear()
                pending = [task for task in self._tasks if not task.done()]
                if not pending:
                    return
                for task in pending:
                    task.cancel()
                with contextlib.suppress(Exception):  # the scenario is over: what ends badly now is not its concern
                    self.run_until(self.now)
            raise RuntimeError(f"these tasks cannot be cancelled: {pending}")
        finally:
            _set_running_loop(None)

    def _wake_the_dead(self) -> None:
        """Coroutines without power get what they missed, so that they can be cancelled; Python minds their corpses."""
        for life in self.ended:
            life.is_over = False
            self._ready.extend(life.missed)

    def run_until_complete(self, future: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:  # type: ignore[override]
        """The result of a coroutine; raises RuntimeError when it waits for what will never happen."""
        task = asyncio.ensure_future(future, loop=self)
        task.add_done_callback(lambda _: self.stop())
        if not task.done():
            self.run_until(None)
        if not task.done():
            raise RuntimeError("nothing is scheduled: the coroutine would wait forever")
        return task.result()

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.at(when, _run, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is passed over when its time has come

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            result = function(*args)
        except Exception as error:
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, result, None)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._errors.append(error if error is not None else RuntimeError(context["message"]))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False


def _run(handle: asyncio.Handle) -> None:
    if handle._cancelled:
        return
    life = handle._context.get(LIFE)  # type: ignore[attr-defined]
    if life is None or not life.is_over:
        handle._run()
    else:
        life.missed.append(handle)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a virtual clock."""
    with VirtualLoop() as loop:
        return loop.run_until_complete(main)
