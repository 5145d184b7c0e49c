"""A few threads for what blocks: unpacking, health checks. They end with the process, whatever they are doing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Like ThreadPoolExecutor, but the end of the process does not wait: a half unpacked image is removed later."""

    def __init__(self, count: int) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._queue.put((future, lambda: function(*args, **kwargs)))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._queue.get()
            try:
                result = call()
            except Exception as error:  # it is the caller's: result() raises it there
                future.set_exception(error)
            else:
                future.set_result(result)
