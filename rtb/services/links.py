"""The URLs that answers carry: tracking in the markup of the house's ads, and our own notices on every bid that won."""

from __future__ import annotations

from rtb.domain.campaign import Pricing
from rtb.domain.markup import TOKEN, Tracker
from rtb.domain.tracking import Signer, Ticket
from rtb.ports import Clock

IMPRESSION, BILLING, WIN, LOSS, CLICK, CONVERSION = "/t/i/", "/t/b/", "/t/w/", "/t/l/", "/t/c/", "/t/v/"
"""Paths of the tracker, each followed by a token."""
NOTICE_S = 86_400.0
"""How long the notices of another bidder's win are listened to."""


class Links:
    """Makes them, once it is known where the tracker listens; until then answers go out without.

    `tracker` and `notices` (nurl, burl, lurl) have markup.TOKEN where the token of a win belongs.
    """

    def __init__(self, signer: Signer, clock: Clock, *, instance: str) -> None:
        """Not begun: `listen` tells the address."""
        self._signer = signer
        self._clock = clock
        self._instance = instance
        self.base = ""
        self.tracker: Tracker | None = None
        self.notices = ("", "", "")
        self.token = signer.token

    def listen(self, base: str) -> None:
        """The tracker is reached under this URL, as in ``https://track.example``; "" stops tracking."""
        base = base.rstrip("/")
        self.base = base
        self.tracker = Tracker(f"{base}{IMPRESSION}{TOKEN}", f"{base}{CLICK}{TOKEN}") if base else None
        self.notices = (
            f"{base}{WIN}{TOKEN}?price=${{AUCTION_PRICE}}",
            f"{base}{BILLING}{TOKEN}",
            f"{base}{LOSS}{TOKEN}?reason=${{AUCTION_LOSS}}",
        )

    def notices_of(self, auction_id: str, impid: str) -> tuple[str, str, str]:
        """nurl, burl and lurl for another bidder's win."""
        now = self._clock.time()
        ticket = Ticket(
            auction_id, impid, "", "", "", self._instance, Pricing.CPM, 0, 0, won_at=now, expires_at=now + NOTICE_S
        )
        token = self.token(ticket)
        nurl, burl, lurl = self.notices
        return nurl.replace(TOKEN, token), burl.replace(TOKEN, token), lurl.replace(TOKEN, token)
