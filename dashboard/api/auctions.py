"""Auctions on the tape: listed, and explained one by one."""

from __future__ import annotations

from aiohttp import web

from dashboard.answers import AuctionList
from dashboard.api.requests import ID, Route, answer, get, id_of, limit, number
from rtb.errors import NotFound
from rtb.services.auction_tape import AuctionStory, AuctionTape

MAX_LISTED = 1_000


class AuctionResource:
    """``/api/auctions``."""

    def __init__(self, tape: AuctionTape) -> None:
        """See `Api`."""
        self._tape = tape

    def routes(self) -> list[Route]:
        """The last ones, one."""
        listing = get(
            "/api/auctions/recent",
            "The last sampled auctions.",
            AuctionList,
            parameters=[limit(50, MAX_LISTED)],
            refusals=(400,),
        )
        one = get("/api/auctions/{id}", "One of them, explained.", AuctionStory, parameters=[ID], refusals=(404,))
        return [(listing, self._list), (one, self._one)]

    async def _list(self, request: web.Request) -> web.Response:
        return answer(AuctionList(self._tape.recent(number(request, "limit", 50, MAX_LISTED))))

    async def _one(self, request: web.Request) -> web.Response:
        story = self._tape.explain(id_of(request))
        if story is None:
            raise NotFound(f"auction {id_of(request)[:100]!r}: not on the tape, or no longer")
        return answer(story)
