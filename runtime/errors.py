"""Errors a user can cause, and how the commands show them: one line, exit status 2."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

_EXTRAS = {
    **dict.fromkeys(("torch", "tyro", "accelerate", "safetensors", "matplotlib", "onnx", "onnxscript"), "train"),
    **dict.fromkeys(("PIL", "python_avatars", "resvg_py"), "train"),
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "pybullet": "robot",
    "tritonclient": "triton",
}
"""Which extra of awase brings a package."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what came, what was expected, how to mend it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose complaints are InputErrors: one line, like every other."""

    def error(self, message: str) -> NoReturn:
        """Raise `message` with where to look."""
        raise InputError(f"{message}; see {self.prog} --help")


def cli(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Wrap a command's `main(argv) -> exit status`: what the user can mend becomes one line on stderr and 2.

    That is an InputError, a file that cannot be read or written (OSError), and more asked for than memory holds.
    SIGTERM ends the command as Ctrl-C does, so that nothing half-written stays.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
        try:
            with _ended_by_sigterm():
                return main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:
            if error.name is None or (extra := _EXTRAS.get(error.name.split(".")[0])) is None:
                raise
            print(f"error: {error.name} is not installed; `pip install 'awase[{extra}]'`", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader of our stdout went away (`… | head`): not an error, but Python must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        except MemoryError as error:
            print(f"error: out of memory ({one_line(error)}); ask for less at a time", file=sys.stderr)
            return 2

    return wrapped


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) in here, unless somebody has other plans for it."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def one_line(error: Exception) -> str:
    """What an error says, in one line; `PATH: reason` if it is the operating system's."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(text.split())
