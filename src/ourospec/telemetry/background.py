"""Work that must not keep a training step waiting: a thread does it, in order, a moment later."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """Hands items to `work` on a thread of its own: all that have gathered since the last call, oldest first.

    An exception in `work` loses those items and is reported once, by a Python warning; later items are tried again,
    so that a full disk costs what it has to and no more.

    Args:
        work: takes the items; only ever called from one thread at a time.
        what: what is written, for the warning.
        keep: the most items that wait, older ones being dropped; None for all. 1 means that only the latest counts.
    """

    def __init__(self, work: Callable[[Sequence[Item]], None], what: str, *, keep: int | None = None) -> None:
        self._work, self._what = work, what
        self._waiting: deque[Item] = deque(maxlen=keep)
        self._change = threading.Condition()
        self._closing = False
        self._warned = False
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> None:
        """Leave an item; returns at once. The first one starts the thread."""
        with self._change:
            self._waiting.append(item)
            if self._thread is None:
                self._closing = False
                # A daemon, so that a process which forgets to close can still end.
                self._thread = threading.Thread(target=self._run, name=f"ouro {self._what}", daemon=True)
                self._thread.start()
            self._change.notify()

    def close(self) -> None:
        """Return when everything left so far is done."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while items := self._next():
            try:
                self._work(items)
            except Exception as error:
                self._warn(error)

    def _next(self) -> list[Item]:
        """What waits, or nothing when all is done and the owner closes."""
        with self._change:
            while not self._waiting and not self._closing:
                self._change.wait()
            items = list(self._waiting)
            self._waiting.clear()
            return items

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        warnings.warn(
            f"{self._what} could not be written ({why}); training goes on without.",
            RuntimeWarning,
            stacklevel=2,
        )
