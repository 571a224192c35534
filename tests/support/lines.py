"""The lines of a child process's output, as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO


class Lines:
    """Collects a pipe's lines in a thread, and wakes whoever waits for one."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """Read `pipe` to its end."""
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        """All of it so far."""
        with self._changed:
            return "\n".join(self._lines)

    def all(self) -> list[str]:
        """The lines so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, wanted: Callable[[str], bool], timeout_s: float) -> str:
        """The first line that is `wanted`; AssertionError with all lines when the pipe ends or time is up first."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(map(wanted, self._lines)), timeout_s)
            found = next(filter(wanted, self._lines), None)
            assert found is not None, "the line did not come; what did:\n" + "\n".join(self._lines)
            return found

    def close(self) -> None:
        """Wait for the end of the pipe, which comes with the end of the process."""
        self._thread.join(10)
        self._pipe.close()

    def _read(self) -> None:
        for line in self._pipe:
            with self._changed:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
