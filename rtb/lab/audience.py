"""The audience of the ads that were won: it sees, clicks and buys, and some of it is up to no good.

It reads the tracking URLs out of a bid's markup, as a browser would, and calls them after a while: impressions, some
clicks, few conversions. Known shares come twice, from crawlers, too late, or with a forged URL. What should come of it
is counted here, independently of the exchange.
"""

from __future__ import annotations

import asyncio
import html
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from rtb.domain import money
from rtb.lab.vocabulary import DEVICES
from rtb.openrtb import BidResponse

CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
AGAIN_S = 0.2
MAX_UNDER_WAY = 256

_URL = re.compile(r"""https?://[^\s"'<>\\\]]+/t/([icv])/([A-Za-z0-9_-]+)[^\s"'<>\\\]]*""")
_decoder = msgspec.json.Decoder(BidResponse)


class Behaviour(Struct, frozen=True, kw_only=True):
    """Shares from 0 to 1, and mean waiting times in seconds.

    `view` of the wins are seen, `click` of those are clicked, `conversion` of the clicks end in a purchase, worth
    `value` on average. `repeat` of all events are sent twice. Of the wins, `bot` are loaded by a crawler instead of a
    person, `late` after `late_s`, and of `forged` an altered URL is called as well.
    """

    view: float = 0.85
    click: float = 0.02
    conversion: float = 0.1
    repeat: float = 0.05
    bot: float = 0.02
    late: float = 0.0
    forged: float = 0.01
    view_s: float = 0.5
    click_s: float = 2.0
    conversion_s: float = 5.0
    late_s: float = 65.0
    value: float = 20.0


@dataclass(slots=True)
class Count:
    """What should stand in the exchange's books about a campaign. `nanos` is what its impressions cost by CPM."""

    wins: int = 0
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    nanos: int = 0


@dataclass(slots=True)
class Seen:
    """What became of the calls: by campaign what should be billed, and how many calls were otherwise."""

    campaigns: dict[str, Count] = field(default_factory=dict)
    repeats: int = 0
    bots: int = 0
    late: int = 0
    forged: int = 0
    unanswered: int = 0
    odd: dict[str, int] = field(default_factory=dict)
    """Answers that were not expected, by what and status."""


class _Win(Struct, gc=False):
    """An ad on its way to somebody."""

    campaign_id: str
    nanos: int
    impression: str
    click: str
    ua: str


class Audience:
    """``target.on_won = Audience(...).watch``; `end` waits for what is still to come."""

    def __init__(self, behaviour: Behaviour | None = None, *, seed: int = 0, patience_s: float = 2.0) -> None:
        """The same choices for the same seed. A call that gets no answer is made again for `patience_s`, as by a
        browser that lost its connection: the exchange must count it once."""
        self.behaviour = behaviour or Behaviour()
        self.seen = Seen()
        self._rng = random.Random(seed)
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False
        self._more = asyncio.Event()
        self.answers = 0

    async def answered(self, calls: int) -> None:
        """Wait until so many calls were answered, as expected or not."""
        while self.answers < calls:
            self._more.clear()
            await self._more.wait()

    def watch(self, body: bytes) -> None:
        """Take a bid response that won, and act on it in time."""
        response = _decoder.decode(body)
        for seat in response.seatbid or ():
            for bid in seat.bid or ():
                found = tracking_urls(bid.adm or "")
                if not self._ended and "i" in found:
                    nanos = money.to_micros(bid.price or 0.0)
                    ua = self._rng.choice(DEVICES).ua
                    self._won(_Win(bid.cid or "", nanos, found["i"], found.get("c", ""), ua))

    async def end(self, *, at_once: bool = False) -> Seen:
        """Wait for every call that is still to be made (or give them up), and say what there was."""
        self._ended = True
        while self._tasks:
            if at_once:
                for task in self._tasks:
                    task.cancel()
            await asyncio.wait(self._tasks)
        if self._session is not None:
            await self._session.close()
            self._session = None
        return self.seen

    def _won(self, win: _Win) -> None:
        self._count(win).wins += 1
        task = asyncio.get_running_loop().create_task(self._live(win))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, win: _Win) -> None:
        """What becomes of one ad."""
        rng, behaviour = self._rng, self.behaviour
        kind = rng.random()
        if rng.random() < behaviour.forged:
            forged = await self._call("forged", forge(win.impression, rng), win.ua, expect=(403,))
            self.seen.forged += forged
        if (kind := kind - behaviour.bot) < 0:
            await self._pause(behaviour.view_s)
            bot = await self._call("bot", win.impression, CRAWLER)
            self.seen.bots += bot
        elif (kind := kind - behaviour.late) < 0:
            await asyncio.sleep(behaviour.late_s)
            late = await self._call("late", win.impression, win.ua, expect=(410,))
            self.seen.late += late
        elif rng.random() < behaviour.view:
            await self._person(win)

    async def _person(self, win: _Win) -> None:
        rng, behaviour, count = self._rng, self.behaviour, self._count(win)
        await self._pause(behaviour.view_s)
        if not await self._once("impression", win.impression, win.ua):
            return
        count.impressions += 1
        count.nanos += win.nanos
        if not win.click or rng.random() >= behaviour.click:
            return
        await self._pause(behaviour.click_s)
        if not await self._once("click", win.click, win.ua):
            return
        count.clicks += 1
        if rng.random() < behaviour.conversion:
            await self._pause(behaviour.conversion_s)
            value = round(rng.uniform(0.5, 1.5) * behaviour.value, 2)
            url = f"{win.impression.replace('/t/i/', '/t/v/')}?value={value}"
            bought = await self._once("conversion", url, win.ua)
            count.conversions += bought

    async def _once(self, what: str, url: str, ua: str) -> bool:
        """An event that should count once, though some come twice."""
        if not await self._call(what, url, ua):
            return False
        if self._rng.random() < self.behaviour.repeat:
            again = await self._call(f"{what} again", url, ua)
            self.seen.repeats += again
        return True

    async def _call(self, what: str, url: str, ua: str, *, expect: tuple[int, ...] = (200, 204, 302)) -> bool:
        """Call until it is answered; whether as expected."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience_s
        async with self._room:
            if self._session is None:
                self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._patience_s))
            while True:
                try:
                    where = URL(url, encoded=True)
                    async with self._session.get(where, headers={"user-agent": ua}, allow_redirects=False) as answer:
                        status = answer.status
                except (aiohttp.ClientError, TimeoutError, OSError):
                    status = 503
                if status != 503:
                    break
                if loop.time() > give_up:
                    self.seen.unanswered += 1
                    return False
                await asyncio.sleep(AGAIN_S)
        self.answers += 1
        self._more.set()
        if status in expect:
            return True
        odd = f"{what}: status {status}"
        self.seen.odd[odd] = self.seen.odd.get(odd, 0) + 1
        return False

    async def _pause(self, mean_s: float) -> None:
        if mean_s:
            await asyncio.sleep(self._rng.expovariate(1 / mean_s))

    def _count(self, win: _Win) -> Count:
        return self.seen.campaigns.setdefault(win.campaign_id, Count())


def tracking_urls(adm: str) -> Mapping[str, str]:
    """The first tracking URL of each kind in a markup: i impression, c click; HTML and XML escapes are undone."""
    found: dict[str, str] = {}
    for match in _URL.finditer(html.unescape(adm)):
        found.setdefault(match[1], match[0])
    return found


def forge(url: str, rng: random.Random) -> str:
    """The URL with one character of its token changed, so that its signature cannot be right.

    The token's last character is left alone: some of its bits may mean nothing.
    """
    path = urlsplit(url).path
    token = path.rpartition("/")[2]
    at = rng.randrange(len(token) - 1)
    other = rng.choice([c for c in "ABCDEFGHabcdefgh01234567" if c != token[at]])
    return url.replace(token, token[:at] + other + token[at + 1 :])
