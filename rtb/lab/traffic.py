"""Realistic SSP traffic, the same for the same seed.

Users are drawn by Zipf's law and keep their city, device, language and interests from one request to the next, so that
profiles, frequency caps and geo targeting have something to work on.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

import orjson

from rtb.lab.filler import fill
from rtb.lab.vocabulary import (
    ADVERTISER_DOMAINS,
    CITIES,
    COUNTRIES,
    DEAL_IDS,
    DEVICES,
    DOMAINS,
    INTERESTS,
    LANGUAGES,
    OSES,
    SEGMENTS,
    SENSITIVE_CATS,
    SITE_CATS,
    SIZES,
    VENUES,
    City,
    Country,
    Device,
    Venue,
)

__all__ = [
    "ADVERTISER_DOMAINS",
    "CITIES",
    "COUNTRIES",
    "DEAL_IDS",
    "DEVICES",
    "DOMAINS",
    "INTERESTS",
    "LANGUAGES",
    "OSES",
    "SEGMENTS",
    "SENSITIVE_CATS",
    "SITE_CATS",
    "SIZES",
    "VENUES",
    "Traffic",
    "User",
]

_T = TypeVar("_T")

_MEDIA = (("banner", 78), ("video", 12), ("native", 8), ("audio", 2))
_TV_MEDIA = (("video", 95), ("audio", 5))
_IMPS = ((1, 88), (2, 8), (3, 4))
_TMAX_MS = ((80, 5), (100, 35), (120, 30), (150, 15), (200, 10), (300, 5))
_FLOOR_FACTOR = {"banner": 1.0, "native": 1.3, "video": 5.0, "audio": 3.0}
_HOUSE_DEVICES = {2: "desktop", 3: "tv", 4: "mobile", 5: "tablet"}
_GDPR = ("DEU", "GBR")
_CONSENT = "CQAAAAAQAAAAAAHABBENDEFgAPLAAELAAAAAF5wAQF5gXnABAXmAA.YAAAAAAAAAA"
_GEO_SPREAD_DEGREES = 0.04
_NATIVE_REQUEST = (
    '{"ver":"1.2","context":1,"plcmttype":1,"assets":[{"id":1,"required":1,"title":{"len":90}},'
    '{"id":2,"required":1,"img":{"type":3,"wmin":600,"hmin":314}},{"id":3,"data":{"type":2,"len":140}}]}'
)


class _Weighted(Generic[_T]):
    """Values drawn in proportion to their weights."""

    def __init__(self, pairs: Sequence[tuple[_T, float]]) -> None:
        self._values = [value for value, _ in pairs]
        self._sums = list(accumulate(weight for _, weight in pairs))

    def draw(self, rng: random.Random) -> _T:
        return self._values[bisect(self._sums, rng.random() * self._sums[-1])]


_countries = _Weighted([(country, country.weight) for country in COUNTRIES])
_cities = {c.code: _Weighted([(city, city.weight) for city in CITIES if city.country == c.code]) for c in COUNTRIES}
_devices = _Weighted([(device, device.weight) for device in DEVICES])
_venues = {c.code: [v for v in VENUES if v.country in ("", c.code)] for c in COUNTRIES}
_phone_sizes = _Weighted([pair for pair in SIZES if pair[0][0] <= 336])
_wide_sizes = _Weighted([pair for pair in SIZES if pair[0][0] != 320])
_media = _Weighted(_MEDIA)
_tv_media = _Weighted(_TV_MEDIA)
_imps = _Weighted(_IMPS)
_tmax_ms = _Weighted(_TMAX_MS)


@dataclass(frozen=True, slots=True)
class User:
    """What stays the same about a user."""

    id: str
    country: Country
    city: City
    lat: float
    lon: float
    device: Device
    ip: str
    ifa: str
    interests: tuple[str, ...]


class Traffic:
    """An endless stream of bid requests of a population of users."""

    def __init__(self, seed: int = 0, users: int = 100_000, *, zipf: float = 1.0) -> None:
        """Prepare `users` users; the one of rank k turns up in proportion to 1 / k**zipf.

        Raises:
            ValueError: no users.
        """
        if users < 1:
            raise ValueError(f"users is {users}, at least one is needed")
        self._seed = seed
        self._rng = random.Random(seed)
        self._popularity = list(accumulate(1 / rank**zipf for rank in range(1, users + 1)))

    def user(self, rank: int) -> User:
        """The user of that rank, 0 the most frequent; the same at any time."""
        rng = random.Random(self._seed << 32 | rank)
        country = _countries.draw(rng)
        city = _cities[country.code].draw(rng)
        return User(
            id=f"u-{rank:06d}",
            country=country,
            city=city,
            lat=round(rng.gauss(city.lat, _GEO_SPREAD_DEGREES), 4),
            lon=round(rng.gauss(city.lon, _GEO_SPREAD_DEGREES), 4),
            device=_devices.draw(rng),
            ip=f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}",
            ifa="{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}".format(*(rng.getrandbits(n) for n in (32, 16, 12, 12, 48))),
            interests=tuple(rng.sample(INTERESTS, rng.randint(1, 6))),
        )

    def request(self) -> dict[str, Any]:
        """An OpenRTB 2.6 bid request."""
        rng = self._rng
        user = self.draw_user()
        venue = rng.choice(_venues[user.country.code])
        in_app = bool(venue.bundle) and user.device.devicetype != 2
        request: dict[str, Any] = {
            "id": f"{rng.getrandbits(128):032x}",
            "imp": [self._imp(f"{number}", user) for number in range(1, _imps.draw(rng) + 1)],
            "app" if in_app else "site": self._app(venue) if in_app else self._site(venue, user),
            "device": self._device(user, in_app),
            "user": {"id": user.id, "keywords": ",".join(user.interests)},
            "at": 1 if rng.random() < 0.08 else 2,
            "tmax": _tmax_ms.draw(rng),
            "cur": ["USD"],
        }
        if rng.random() < 0.25:
            request["bcat"] = rng.sample(SENSITIVE_CATS, rng.randint(1, 3))
        if rng.random() < 0.10:
            request["badv"] = rng.sample(ADVERTISER_DOMAINS, rng.randint(1, 2))
        if user.country.code in _GDPR:
            request["regs"] = {"gdpr": 1}
            request["user"]["consent"] = _CONSENT
        elif user.country.code == "USA":
            request["regs"] = {"us_privacy": "1YNN"}
        return request

    def requests(self) -> Iterator[dict[str, Any]]:
        """Requests without end."""
        while True:
            yield self.request()

    def body(self, target_bytes: int | None = None) -> bytes:
        """The JSON of a request, filled up to at most `target_bytes` with what SSPs fill theirs with: page and referrer
        addresses, content, data segments. One that is longer by itself stays as it is."""
        request = self.request()
        if target_bytes is not None:
            fill(request, target_bytes, self._rng)
        return orjson.dumps(request)

    def house(self) -> dict[str, Any]:
        """A bid request in the house format."""
        rng = self._rng
        user = self.draw_user()
        return {
            "request_id": f"{rng.getrandbits(128):032x}",
            "user_id": user.id,
            "device_type": _HOUSE_DEVICES[user.device.devicetype],
            "location": {"lat": user.lat, "lng": user.lon},
            "interests": list(user.interests),
            "floor_price": self._floor("banner"),
            "timeout_ms": 120,
            "ad_slot_id": f"slot-{rng.randrange(1, 200)}",
            "user_context": {
                "country": user.country.code,
                "city": user.city.name,
                "language": user.country.language,
                "os": user.device.os,
            },
        }

    def draw_user(self) -> User:
        """The user of the next request, by popularity."""
        return self.user(bisect(self._popularity, self._rng.random() * self._popularity[-1]))

    def _imp(self, impid: str, user: User) -> dict[str, Any]:
        rng = self._rng
        tv = user.device.devicetype == 3
        media = (_tv_media if tv else _media).draw(rng)
        imp: dict[str, Any] = {"id": impid, "tagid": f"{media}-{rng.randrange(1, 40)}", "secure": 1}
        imp[media] = getattr(self, f"_{media}")(user)
        if media == "video" and not tv and rng.random() < 0.2:
            imp["banner"] = self._banner(user)
        floor = self._floor(media)
        if floor:
            imp["bidfloor"] = floor
            imp["bidfloorcur"] = "USD"
        if rng.random() < 0.02:
            deals = [
                {"id": deal, "bidfloor": round(floor * 2 + 1, 2), "at": rng.choice((1, 2, 3))}
                for deal in rng.sample(DEAL_IDS, rng.randint(1, 2))
            ]
            imp["pmp"] = {"private_auction": int(rng.random() < 0.2), "deals": deals}
        return imp

    def _floor(self, media: str) -> float:
        """CPM; about one in ten has none, the rest is spread around half a dollar for banners."""
        rng = self._rng
        if rng.random() < 0.1:
            return 0.0
        return round(min(max(rng.lognormvariate(-0.8, 0.8), 0.05), 10.0) * _FLOOR_FACTOR[media], 2)

    def _banner(self, user: User) -> dict[str, Any]:
        rng = self._rng
        sizes = _phone_sizes if user.device.devicetype == 4 else _wide_sizes
        w, h = sizes.draw(rng)
        formats = [{"w": w, "h": h}]
        if rng.random() < 0.3:
            w2, h2 = sizes.draw(rng)
            if (w2, h2) != (w, h):
                formats.append({"w": w2, "h": h2})
        banner: dict[str, Any] = {"w": w, "h": h, "format": formats, "pos": rng.choice((0, 1, 1, 3))}
        if rng.random() < 0.15:
            banner["battr"] = [1, 3, 8]
        return banner

    def _video(self, user: User) -> dict[str, Any]:
        rng = self._rng
        tv = user.device.devicetype == 3
        w, h = (1920, 1080) if tv else rng.choice(((640, 360), (640, 480), (1280, 720)))
        return {
            "mimes": ["video/mp4", "video/webm"],
            "minduration": 5,
            "maxduration": rng.choice((15, 30, 30, 60)),
            "protocols": [2, 3, 5, 6, 7, 8],
            "w": w,
            "h": h,
            "startdelay": 0,
            "plcmt": 1 if tv else rng.choice((1, 2, 4)),
            "linearity": 1,
            "playbackmethod": [1],
            "api": [2, 7],
        }

    def _audio(self, _: User) -> dict[str, Any]:
        return {
            "mimes": ["audio/mpeg", "audio/mp4"],
            "minduration": 5,
            "maxduration": self._rng.choice((15, 30)),
            "protocols": [9, 10],
            "feed": 3,
        }

    def _native(self, _: User) -> dict[str, Any]:
        return {"request": _NATIVE_REQUEST, "ver": "1.2"}

    def _site(self, venue: Venue, user: User) -> dict[str, Any]:
        rng = self._rng
        section = venue.cats[0].lower()
        return {
            "id": f"site-{VENUES.index(venue) + 1}",
            "name": venue.name,
            "domain": venue.domain,
            "cat": list(venue.cats),
            "page": f"https://www.{venue.domain}/{section}/{rng.randrange(1, 20_000)}.html",
            "mobile": int(user.device.devicetype == 4),
            "publisher": {"id": f"pub-{VENUES.index(venue) + 1}", "domain": venue.domain},
        }

    def _app(self, venue: Venue) -> dict[str, Any]:
        return {
            "id": f"app-{VENUES.index(venue) + 1}",
            "name": venue.name,
            "bundle": venue.bundle,
            "domain": venue.domain,
            "storeurl": f"https://store.example/apps/{venue.bundle}",
            "cat": list(venue.cats),
            "ver": f"{self._rng.randint(1, 9)}.{self._rng.randint(0, 20)}",
            "publisher": {"id": f"pub-{VENUES.index(venue) + 1}", "name": venue.name},
        }

    def _device(self, user: User, in_app: bool) -> dict[str, Any]:
        device, city = user.device, user.city
        facts: dict[str, Any] = {
            "ua": device.ua,
            "ip": user.ip,
            "geo": {
                "lat": user.lat,
                "lon": user.lon,
                "type": 1 if in_app else 2,
                "country": city.country,
                "region": city.region,
                "city": city.name,
                "zip": city.zip,
                "utcoffset": user.country.utcoffset,
            },
            "devicetype": device.devicetype,
            "os": device.os,
            "osv": device.osv,
            "make": device.make,
            "model": device.model,
            "w": device.w,
            "h": device.h,
            "language": user.country.language,
            "connectiontype": 2 if device.devicetype in (2, 3) else self._rng.choice((2, 6, 7)),
        }
        if in_app:
            facts["ifa"] = user.ifa
        return {name: value for name, value in facts.items() if value != ""}
