"""A bidder that lets auctions wait, for as long as a test wants one to be under way.

with HeldBidder(folder) as bidder, Daemon(folder, *bidder.settings) as daemon:
    ... send a bid request ...
    bidder.wait()       the daemon has asked it: the auction is under way
    bidder.answer()     no bid: the auction goes on
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.daemon import LIMIT_S

NO_BID = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"


class HeldBidder:
    """Listens on a free port of 127.0.0.1 and takes one bid request; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Listen, and write the daemon's file of bidders into `folder`."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._asked, self._free = threading.Event(), threading.Event()
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/bid"
        (folder / "bidders.toml").write_text(f'[[bidder]]\nname = "held"\nurl = "{url}"\nwarm = 0\n')
        self.settings = (
            "bidders.file=bidders.toml",
            'bidders.allow=["127.0.0.1"]',
            "auction.deadline_ms=60000",
            f"drain.limit_s={LIMIT_S:g}",
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let go of whom it holds, and end."""
        self._free.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() does not
        self._thread.join()
        self._listener.close()

    def wait(self) -> None:
        """Until it was asked."""
        assert self._asked.wait(LIMIT_S), "the bidder was not asked"

    def answer(self) -> None:
        """Have it answer."""
        self._free.set()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(65_536)
                self._asked.set()
                self._free.wait()
                connection.sendall(NO_BID)
                while connection.recv(65_536):
                    pass
        except OSError:
            pass  # nobody asked, or who did is gone
