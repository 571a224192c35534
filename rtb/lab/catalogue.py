"""Believable campaigns, the same for the same seed, in the words that lab traffic uses.

Most target a country or a city near their customers, a few interests, a device; prices are log-normal around a dollar;
an advertiser has five campaigns on average. Equal values are one object, so that a million campaigns fit in memory.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TypeVar

from rtb.domain.campaign import Campaign, Circle, Creative, FrequencyCap, Media, Pricing, Targeting
from rtb.lab.vocabulary import (
    ADVERTISER_DOMAINS,
    CITIES,
    COUNTRIES,
    DEAL_IDS,
    DOMAINS,
    INTERESTS,
    OSES,
    SEGMENTS,
    SENSITIVE_CATS,
    SITE_CATS,
    SIZES,
    City,
    Country,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

_ZONES = {
    "KOR": "Asia/Seoul",
    "JPN": "Asia/Tokyo",
    "DEU": "Europe/Berlin",
    "GBR": "Europe/London",
    "USA": "America/New_York",
}
_OFFICE = tuple(day * 24 + hour for day in range(5) for hour in range(8, 19))
_EVENING = tuple(day * 24 + hour for day in range(7) for hour in range(17, 24))
_WEEKEND = tuple(range(120, 168))
_WAKING = tuple(day * 24 + hour for day in range(7) for hour in range(7, 24))
_SCHEDULES = (_OFFICE, _EVENING, _WEEKEND, _WAKING)
_MEDIA = (Media.BANNER, Media.VIDEO, Media.NATIVE, Media.AUDIO)
_CITY_OF = {country.code: [city for city in CITIES if city.country == country.code] for country in COUNTRIES}
_PARENTS = tuple(cat for cat in SITE_CATS if "-" not in cat)
_OWN_CATS = tuple((cat,) for cat in (*SITE_CATS * 4, *SENSITIVE_CATS))
_PRICINGS = tuple(Pricing)
_MOST_DISTINCT = 20_000

_T = TypeVar("_T", bound=Hashable)


def campaigns(count: int, seed: int = 1, *, today: datetime = EPOCH) -> Iterator[Campaign]:
    """`count` campaigns, ids c0000001 and up; most are in flight for the year that begins `today`.

    Raises:
        ValueError: a negative count.
    """
    if count < 0:
        raise ValueError(f"count is {count}, below 0")
    return _Catalogue(count, seed, today).campaigns()


class _Catalogue:
    def __init__(self, count: int, seed: int, today: datetime) -> None:
        self._count = count
        self._today = today
        self._rng = random.Random(seed)
        self._advertisers = max(1, count // 5)
        self._same: dict[Hashable, Hashable] = {}
        self._pools: dict[str, list[Targeting]] = {country.code: [] for country in COUNTRIES}
        self._portfolios: list[tuple[Creative, ...]] = []

    def campaigns(self) -> Iterator[Campaign]:
        for number in range(1, self._count + 1):
            yield self._campaign(number)

    def _campaign(self, number: int) -> Campaign:
        rng = self._rng
        advertiser = rng.randrange(self._advertisers)
        country = rng.choices(COUNTRIES, cum_weights=_COUNTRY_SUMS)[0]
        pricing = rng.choices(_PRICINGS, cum_weights=(70, 92, 100))[0]
        cpm = min(max(rng.lognormvariate(0.2, 0.7), 0.05), 40.0)
        pctr, pcvr = rng.choice((0.0005, 0.001, 0.002, 0.004)), rng.choice((0.01, 0.02, 0.05))
        chance = 1.0 if pricing is Pricing.CPM else pctr * 1000 * (pcvr if pricing is Pricing.CPA else 1.0)
        start = self._today + timedelta(days=rng.randrange(-60, 30))
        return Campaign(
            id=f"c{number:07d}",
            advertiser=self._one(f"advertiser-{advertiser}"),
            creatives=self._creatives(rng),
            name=self._one(f"Advertiser {advertiser} {country.code}"),
            adomain=self._adomain(advertiser),
            cat=rng.choice(_OWN_CATS),
            pricing=pricing,
            bid=round(cpm / chance, 2) or 0.01,
            pctr=pctr,
            pcvr=pcvr,
            daily_budget=rng.choice((None, 50.0, 100.0, 250.0, 1000.0, 5000.0)),
            start=self._one(start) if rng.random() < 0.7 else None,
            end=self._one(start + timedelta(days=rng.choice((365, 730, 1095)))) if rng.random() < 0.5 else None,
            timezone=_ZONES[country.code],
            frequency_cap=rng.choice((None, None, _CAPS[0], _CAPS[1], _CAPS[2])),
            deals=self._one((rng.choice(DEAL_IDS),)) if rng.random() < 0.03 else (),
            targeting=self._targeting(rng, country),
        )

    def _targeting(self, rng: random.Random, country: Country) -> Targeting:
        pool = self._pools[country.code]
        if len(pool) == _MOST_DISTINCT:
            return rng.choice(pool)
        targeting = self._new_targeting(rng, country)
        pool.append(targeting)
        return targeting

    def _new_targeting(self, rng: random.Random, country: Country) -> Targeting:
        """Where first: a circle, a city, a region, a country or anywhere; then a few of the other keys."""
        where = rng.random()
        city = rng.choice(_CITY_OF[country.code])
        roll = rng.random
        return self._one(
            Targeting(
                interests=self._some(rng, INTERESTS, 4) if roll() < 0.5 else (),
                segments=self._some(rng, SEGMENTS, 3) if roll() < 0.05 else (),
                geo=self._circles(rng, city) if where < 0.15 else (),
                country=() if where < 0.15 or where > 0.85 else self._one((country.code,)),
                region=self._one((city.region,)) if 0.15 <= where < 0.22 else (),
                city=self._one((city.name,)) if 0.22 <= where < 0.40 else (),
                devicetype=rng.choice(((4,), (4, 5), (2,), (3,))) if roll() < 0.35 else (),
                os=self._some(rng, OSES, 2) if roll() < 0.2 else (),
                language=self._one((country.language,)) if roll() < 0.1 else (),
                domain=self._some(rng, DOMAINS, 8) if roll() < 0.1 else (),
                domain_exclude=self._some(rng, DOMAINS, 4) if roll() < 0.15 else (),
                site_cat=self._some(rng, SITE_CATS, 4) if roll() < 0.2 else (),
                site_cat_exclude=self._some(rng, _PARENTS, 3) if roll() < 0.15 else (),
                hours=rng.choice(_SCHEDULES) if roll() < 0.15 else (),
            )
        )

    def _circles(self, rng: random.Random, city: City) -> tuple[Circle, ...]:
        """One to three around shops of a city."""
        circles = tuple(
            self._one(
                Circle(
                    lat=round(city.lat + rng.randrange(-10, 11) * 0.01, 4),
                    lon=round(city.lon + rng.randrange(-10, 11) * 0.01, 4),
                    radius=rng.choice((2.0, 5.0, 10.0, 10.0, 25.0, 80.0)),
                )
            )
            for _ in range(rng.randint(1, 3))
        )
        return self._one(circles)

    def _creatives(self, rng: random.Random) -> tuple[Creative, ...]:
        if len(self._portfolios) == _MOST_DISTINCT:
            return rng.choice(self._portfolios)
        portfolio = self._one(tuple(self._creative(rng, number) for number in range(1, rng.choice((2, 2, 3, 4)))))
        self._portfolios.append(portfolio)
        return portfolio

    def _creative(self, rng: random.Random, number: int) -> Creative:
        media = rng.choices(_MEDIA, (75, 15, 8, 2))[0]
        w, h = rng.choices(_SIZES, _SIZE_WEIGHTS)[0] if media is Media.BANNER else (0, 0)
        stream = media in (Media.VIDEO, Media.AUDIO)
        name = f"{media.value}-{w}x{h}" if w else media.value
        return self._one(
            Creative(
                id=self._one(f"{name}-{number}"),
                media=media,
                w=w,
                h=h,
                dur=rng.choice((6, 15, 15, 30)) if stream else 0,
                mime={Media.VIDEO: "video/mp4", Media.AUDIO: "audio/mpeg"}.get(media, ""),
                protocol={Media.VIDEO: 3, Media.AUDIO: 9}.get(media, 0),
                attr=rng.choice(((), (), (), (), (3,), (8,))),
                secure=rng.random() < 0.97,
                image_url=self._one(f"https://cdn.example/{name}.jpg"),
                landing_page="https://shop.example/",
            )
        )

    def _adomain(self, advertiser: int) -> tuple[str, ...]:
        """The well-known ones belong to the first advertisers, the rest have one of their own."""
        if advertiser < len(ADVERTISER_DOMAINS):
            return self._one((ADVERTISER_DOMAINS[advertiser],))
        return self._one((f"brand-{advertiser}.example",))

    def _some(self, rng: random.Random, words: tuple[str, ...], most: int) -> tuple[str, ...]:
        return self._one(tuple(sorted(rng.sample(words, rng.randint(1, most)))))

    def _one(self, value: _T) -> _T:
        """The object that stands for all equal ones."""
        return self._same.setdefault(value, value)  # type: ignore[return-value]


_COUNTRY_SUMS = list(accumulate(country.weight for country in COUNTRIES))
_SIZES = [size for size, _ in SIZES]
_SIZE_WEIGHTS = [weight for _, weight in SIZES]
_CAPS = (FrequencyCap(count=2), FrequencyCap(count=5), FrequencyCap(count=20, seconds=604_800))
