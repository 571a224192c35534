"""A timer that is on time to some tens of microseconds: the event loop's own go by the millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_ITIMERSPEC = struct.Struct("qqqq")


class Alarm:
    """Calls back at instants of time.monotonic_ns(): a Linux timerfd; elsewhere the loop's timers."""

    def __init__(self, callback: Callable[[], None]) -> None:
        """Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._fd = -1
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:  # not Linux
            return
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop.add_reader(self._fd, callback)

    def set(self, at_ns: int) -> None:
        """Call back once at that instant, or at once when it has passed; an instant set before is forgotten."""
        if self._fd < 0:
            self._loop.call_later(max(0, at_ns - time.monotonic_ns()) / 1e9, self._callback)
            return
        at_ns = max(at_ns, 1)  # an all-zero time would disarm it
        # setting it anew also takes back an expiry that nobody has read
        spec = _ITIMERSPEC.pack(0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, spec, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Never call back again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
