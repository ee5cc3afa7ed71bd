"""The observers of a run, heard out and kept at arm's length: none of them can change or break it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ourospec.contracts import Event, Observer
from ourospec.train.rng import undisturbed


@runtime_checkable
class Rewindable(Protocol):
    """An observer that owns the event file and can cut it back to where a checkpoint was taken."""

    def offset(self) -> int:
        """Bytes written so far."""
        ...

    def truncate(self, offset: int) -> None:
        """Forget everything after the first `offset` bytes."""
        ...


class Audience:
    """All observers. One that raises is reported once, as a warning to the others, and not asked again."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def emit(self, kind: str, step: int, data: Mapping[str, Any]) -> None:
        """Tell everyone. Random numbers that an observer draws are put back."""
        if not self._observers:
            return
        event = Event(kind, step, data)
        with undisturbed():
            for observer in list(self._observers):
                self._ask(observer, step, lambda who=observer: who.on_event(event))

    def offset(self, otherwise: int) -> int:
        """Where the event file ends; `otherwise` where nobody keeps one."""
        for observer in list(self._observers):
            if isinstance(observer, Rewindable):
                found = self._ask(observer, 0, observer.offset)
                if found is not None:
                    return found
        return otherwise

    def truncate(self, offset: int) -> None:
        """Cut the event file back, if someone keeps one."""
        for observer in list(self._observers):
            if isinstance(observer, Rewindable):
                self._ask(observer, 0, lambda who=observer: who.truncate(offset))

    def close(self) -> None:
        """Say good-bye to everyone."""
        for observer in list(self._observers):
            self._ask(observer, 0, observer.close)
        self._observers.clear()

    def _ask(self, observer: Observer, step: int, question: Callable[[], Any]) -> Any:
        if observer not in self._observers:
            return None  # dismissed a moment ago, over the warning about another
        try:
            return question()
        except Exception as error:
            self._dismiss(observer, step, error)
            return None

    def _dismiss(self, observer: Observer, step: int, error: Exception) -> None:
        self._observers.remove(observer)
        with contextlib.suppress(Exception):  # it has failed already; that is what is being reported
            observer.close()
        message = f"{type(observer).__name__} failed and is no longer told of events: {error!r}"
        if self._observers:
            self.emit("warning", step, {"message": message})
        else:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
