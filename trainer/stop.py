"""How a training is stopped, and kept from being started twice."""

from __future__ import annotations

import fcntl
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import InputError


class Stop:
    """Catches SIGTERM and Ctrl-C while it is entered.

    Before the first step there is nothing to save: SIGTERM ends the process with status 0 at once. Once `saving` is
    set, the first signal only sets `asked`, so that the loop saves at the end of its step; a second Ctrl-C ends now.
    """

    def __init__(self) -> None:
        self.asked = False
        self.interrupted = False
        """Whether it was Ctrl-C that asked."""
        self.saving = False

    def _caught(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and (self.asked or not self.saving):
            raise KeyboardInterrupt
        if not self.saving:
            sys.exit(0)
        self.asked, self.interrupted = True, number == signal.SIGINT

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._caught) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone; makes it if it is not there.

    Raises:
        InputError: another process trains it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / ".lock", "w")
    except OSError as error:
        raise InputError(f"run folder {path} cannot be written ({error.strerror}); choose another --runs") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"run {path} is being trained by another process; wait for it or choose --name") from error
        yield
