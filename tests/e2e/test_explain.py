"""``rtb explain`` tells the truth: criterion and figures, case by case, by hand."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.daemon import LIMIT_S, Daemon, bids
from tests.support.samples import bid_request, campaign, imp

BUSAN = (35.1796, 129.0756)
SEOUL = (37.5665, 126.978)
REQUEST = bid_request(
    imp=[
        imp(id="open", secure=1, banner={"w": 300, "h": 250, "battr": [3]}),
        imp(id="private", pmp={"private_auction": 1, "deals": [{"id": "deal-1", "bidfloor": 0.5}]}),
    ],
    user={"id": "u1", "keywords": "sports,travel", "data": [{"segment": [{"id": "seg-1"}]}]},
    bseat=["barred-inc"],
    badv=["blocked.test"],
    bcat=["IAB7"],
)


def km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance on R = 6371 km, by the spherical law of cosines."""
    (lat1, lon1), (lat2, lon2) = [tuple(map(math.radians, place)) for place in (a, b)]
    cosine = math.sin(lat1) * math.sin(lat2) + math.cos(lat1) * math.cos(lat2) * math.cos(lon2 - lon1)
    return 6371 * math.acos(cosine)


def other_hours() -> list[int]:
    """Every hour of the week but this one and the next, should the test run into it."""
    now = datetime.now(UTC)
    near = {moment.weekday() * 24 + moment.hour for moment in (now, now + timedelta(hours=1))}
    return [hour for hour in range(168) if hour not in near]


def creative(**fields: Any) -> list[dict[str, Any]]:
    """One creative, 300x250 unless told otherwise."""
    return [{"id": "ad", "w": 300, "h": 250, "adm": "<b>ad</b>", **fields}]


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"status": "paused"}, "status", "is paused"),
    ({"start": "2100-01-01T00:00:00Z"}, "flight", "starts 2100-01-01T00:00:00+00:00"),
    (
        {"targeting": {"hours": other_hours()}, "timezone": "UTC"},
        "hours",
        r"not on (Mon|Tue|Wed|Thu|Fri|Sat|Sun) at \d\d:\d\d UTC",
    ),
    ({"daily_budget": 0.0019}, "budget", "nothing left to spend now"),  # one impression is 0.002
    ({"advertiser": "barred-inc"}, "seat", "barred-inc is blocked"),
    ({"adomain": ["shop.blocked.test"]}, "advertiser", "blocked.test is blocked"),
    ({"cat": ["IAB7-39"]}, "category", "IAB7-39 is blocked"),
    ({"creatives": creative(w=728, h=90)}, "size", "offered is banner 300x250; has banner 728x90"),
    ({"creatives": creative(media="native")}, "size", "offered is banner 300x250; has native 300x250"),
    ({"creatives": creative(secure=False)}, "creative", "ad is not secure"),
    ({"creatives": creative(attr=[3])}, "creative", "ad has the blocked attribute 3"),
    ({"targeting": {"country": ["JPN", "USA"]}}, "country", "KOR is none of JPN, USA"),
    ({"targeting": {"region": ["KR-26"]}}, "region", "kr-11 is none of kr-26"),
    ({"targeting": {"city": ["Busan"]}}, "city", "seoul is none of busan"),
    (
        {"targeting": {"geo": [{"lat": BUSAN[0], "lon": BUSAN[1], "radius": 50}]}},
        "geo",
        f"{km(SEOUL, BUSAN):.1f} km from the nearest circle, radius 50 km",
    ),
    ({"targeting": {"devicetype": [2, 3]}}, "devicetype", "4 is none of 2, 3"),
    ({"targeting": {"os": ["iOS"]}}, "os", "android is none of ios"),
    ({"targeting": {"language": ["en"]}}, "language", "ko is none of en"),
    ({"targeting": {"domain": ["shop.test"]}}, "domain", "news.test is none of shop.test"),
    ({"targeting": {"domain_exclude": ["news.test"]}}, "domain", "news.test is excluded"),
    ({"targeting": {"site_cat": ["IAB1"]}}, "site_cat", "IAB12 is none of IAB1"),
    ({"targeting": {"site_cat_exclude": ["IAB12"]}}, "site_cat", "IAB12 is excluded"),
    ({"targeting": {"interests": ["golf"]}}, "interests", "sports, travel is none of golf"),
    ({"targeting": {"segments": ["seg-9"]}}, "segments", "seg-1 is none of seg-9"),
    ({"bid": 0.49}, "floor", "price 0.49 CPM is below 0.50"),
    ({"bid": 0.2, "pricing": "cpc", "pctr": 0.002}, "floor", "price 0.40 CPM is below 0.50"),
]


def explain(daemon: Daemon, request: dict[str, Any]) -> dict[str, Any]:
    """What the command prints, as JSON."""
    result = daemon.run("explain", "-", "--json", given=msgspec.json.encode(request))
    assert (result.code, result.err) == (0, "")
    found: dict[str, Any] = result.json()
    return found


def of(found: dict[str, Any], name: str, impid: str = "1") -> dict[str, Any]:
    """The one verdict on a campaign in an imp, or on a bidder."""
    names = ("campaign", "bidder")
    [verdict] = [v for v in found["verdicts"] if name in map(v.get, names) and v["impid"] in (impid, "")]
    return dict(verdict)


def start(folder: Path, campaigns: Sequence[dict[str, Any]], *settings: str) -> Daemon:
    """A daemon with these campaigns, imported by the command."""
    daemon = Daemon(folder, *settings)
    assert daemon.run("campaigns", "import", "-", given=msgspec.json.encode(campaigns)).code == 0
    return daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With the campaigns of CASES, each named by its place there, and a capped one."""
    campaigns = [campaign(f"case-{n}", **fields) for n, (fields, _, _) in enumerate(CASES)]
    campaigns.append(campaign("capped", bid=9.0, frequency_cap={"count": 1, "seconds": 3600}, deals=["deal-1"]))
    with start(tmp_path_factory.mktemp("explain"), campaigns) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def criteria(daemon: Daemon) -> dict[str, Any]:
    """The explanation of REQUEST to them, after the capped one was shown to its user."""
    first = bids(daemon.auction({**REQUEST, "imp": REQUEST["imp"][:1]}))
    assert [seat.seat for seat in first.seatbid or ()] == ["capped-inc"]
    return explain(daemon, REQUEST)


@pytest.mark.parametrize(("n", "criterion", "text"), [(n, *case[1:]) for n, case in enumerate(CASES)])
def test_the_criterion_that_kept_a_campaign_out(criteria: dict[str, Any], n: int, criterion: str, text: str) -> None:
    """Each campaign fails by one thing, and is told it with the figures of request and campaign."""
    verdict = of(criteria, f"case-{n}", "open")
    assert (verdict["verdict"], verdict["criterion"]) == ("no-bid", criterion)
    if criterion == "hours":
        assert re.fullmatch(f"hours: {text}", verdict["why"])
    else:
        assert verdict["why"] == f"{criterion}: {text}"


def test_a_cap_that_was_reached(criteria: dict[str, Any]) -> None:
    """The auction before showed it to this user once."""
    verdict = of(criteria, "capped", "open")
    assert (verdict["criterion"], verdict["why"]) == ("frequency", "frequency: 1 shown, at most 1 in 3600 s")


def test_a_private_auction(criteria: dict[str, Any]) -> None:
    """Who has none of its deals stays out of that imp; the one that has is kept out by its cap alone."""
    floor = len(CASES) - 2
    assert of(criteria, f"case-{floor}", "private")["why"] == "deal: private auction under deal-1; has none"
    assert of(criteria, "capped", "private")["criterion"] == "frequency"


def test_every_campaign_has_a_verdict_in_every_imp(criteria: dict[str, Any]) -> None:
    """None is left out, and as nobody bid the request is a no-bid."""
    assert len(criteria["verdicts"]) == 2 * (len(CASES) + 1)
    assert (criteria["outcome"], criteria["nbr"], criteria["nbr_name"]) == ("no-bid", 500, "no_eligible_demand")
    assert (criteria["floors"], criteria["clearing"]) == ({"open": 0.5, "private": 0.5}, {})


def test_winner_losers_and_those_who_did_not_get_in(tmp_path: Path) -> None:
    """13 advertisers at 3.00, 2.90, ... 1.80: the first pays 2.91, three are outbid, nine are not among the four; nor
    is a second campaign of the winner."""
    field = [campaign(f"c{n:02}", bid=round(3.0 - n / 10, 2)) for n in range(13)]
    second = campaign("second", advertiser="c00-inc", bid=2.95)
    with start(tmp_path, [*field, second]) as daemon:
        found = explain(daemon, bid_request())
        assert (found["outcome"], found["nbr"], found["clearing"]) == ("won", None, {"1": 2.91})
        winner = of(found, "c00")
        assert (winner["verdict"], winner["price"], winner["min_to_win"]) == ("won", 3.0, 2.9)
        assert winner["why"] == "won: bid 3.00 CPM, pays 2.91"
        for n in range(1, 4):
            loser = of(found, f"c{n:02}")
            assert (loser["verdict"], loser["loss"], loser["min_to_win"]) == ("lost", 102, 2.91)
            assert loser["why"] == f"lost: bid {3.0 - n / 10:.2f} CPM, outbid (102); 2.91 would have won"
        for name, price in (("c04", "2.60"), ("c11", "1.90"), ("c12", "1.80"), ("second", "2.95")):
            out = of(found, name)
            assert (out["verdict"], out["criterion"]) == ("no-bid", "rank")
            assert out["why"].startswith(f"rank: {price} CPM is eligible, but ")
        [seat] = bids(daemon.auction(bid_request())).seatbid or ()
        assert [(bid.cid, bid.price) for bid in seat.bid or ()] == [("c00", 2.91)]

        table = daemon.run("explain", "-", given=msgspec.json.encode(bid_request())).out.splitlines()
        assert table[0] == "request request-1: won"
        assert table[1] == "imp 1: floor 0.5 CPM, sold at 2.91 CPM"
        assert table[2].split() == ["IMPID", "BIDDER", "CAMPAIGN", "VERDICT", "WHY"]
        assert table[3].split() == ["1", "house", "c00", "won", *["won:", "bid", "3.00", "CPM,", "pays", "2.91"]]
        assert [line.split()[2] for line in table[4:7]] == [f"c{n:02}" for n in range(1, 4)]
        assert len(table) == 3 + 14


def test_a_budget_that_is_used_up(daemon: Daemon, criteria: dict[str, Any]) -> None:
    """1.00 CPM and 0.0012 a day: after one impression at the floor of 0.50 CPM less than a full bid is left."""
    there = {"domain": ["thrifty.test"]}
    daemon.put_campaigns(campaign("thrifty", bid=1.0, daily_budget=0.0012, targeting=there, advertiser="capped-inc"))
    request = bid_request(site={"domain": "thrifty.test"}, wseat=["capped-inc"], user={"id": "u1"})
    assert of(explain(daemon, request), "thrifty")["verdict"] == "won"
    assert daemon.auction(request).status == 200
    assert daemon.auction(request).status == 204
    found = explain(daemon, request)
    assert (found["outcome"], of(found, "thrifty")["criterion"]) == ("no-bid", "budget")


def test_a_late_bidder(tmp_path: Path) -> None:
    """It failed, and the house won without it."""
    settings = ("lab.bidder=true", "lab.bidder_ms=60000", "auction.deadline_ms=1000")
    with start(tmp_path, [campaign("shoes")], *settings) as daemon:
        found = explain(daemon, bid_request())
        assert of(found, "shoes")["why"] == "won: bid 2.00 CPM, pays 0.5"
        assert (of(found, "lab")["verdict"], of(found, "lab")["why"][:5]) == ("failed", "late:")


def test_a_bidder_beside_the_house(tmp_path: Path) -> None:
    """The lab bids 3.00 and pays a cent above the house's 2.00, which is told what would have won."""
    settings = ("lab.bidder=true", "lab.bidder_ms=0", "lab.bidder_cpm=3")
    with start(tmp_path, [campaign("shoes")], *settings) as daemon:
        found = explain(daemon, bid_request())
        assert (of(found, "lab")["verdict"], of(found, "lab")["why"]) == ("won", "won: bid 3.00 CPM, pays 2.01")
        assert of(found, "shoes")["why"] == "lost: bid 2.00 CPM, outbid (102); 2.01 would have won"


def test_a_request_that_gets_no_auction(daemon: Daemon) -> None:
    """A crawler, a tmax without time, a currency without a rate: the reason, and nobody is blamed."""
    for fields, nbr in (({"device": {"ua": "Googlebot/2.1"}}, 3), ({"tmax": 12}, 15), ({"cur": ["XXX"]}, 504)):
        found = explain(daemon, bid_request(**fields))
        assert (found["outcome"], found["nbr"], found["verdicts"]) == ("no-bid", nbr, [])


def test_a_supply_chain_that_is_refused(tmp_path: Path) -> None:
    """By the sellers.json and the ads.txt that lie in a folder: which hop, and what is wrong with it."""
    (tmp_path / "supply" / "sellers").mkdir(parents=True)
    (tmp_path / "supply" / "ads.txt").mkdir()
    sellers = {"sellers": [{"seller_id": "pub-1", "seller_type": "PUBLISHER"}, {"seller_id": "pub-2"}]}
    (tmp_path / "supply" / "sellers" / "ssp.example.json").write_bytes(msgspec.json.encode(sellers))
    (tmp_path / "supply" / "ads.txt" / "news.example.txt").write_text("ssp.example, pub-1, DIRECT\n")
    settings = ("supply.on_fault=refuse", "supply.folder=supply")

    def sold_by(sid: str) -> dict[str, Any]:
        node = {"asi": "ssp.example", "sid": sid, "hp": 1}
        chain = {"complete": 1, "ver": "1.0", "nodes": [node]}
        return bid_request(site={"domain": "news.example"}, source={"schain": chain})

    with start(tmp_path, [campaign("shoes")], *settings) as daemon:
        found = {sid: explain(daemon, sold_by(sid)) for sid in ("pub-1", "pub-2", "pub-3")}
        assert (found["pub-1"]["outcome"], found["pub-1"]["why"]) == ("won", "")
        assert {sid: (told["nbr"], told["why"]) for sid, told in found.items() if told["nbr"]} == {
            "pub-2": (12, "schain.nodes[0]: 'ssp.example', 'pub-2' is not in the ads.txt of news.example"),
            "pub-3": (16, "schain.nodes[0].sid: 'pub-3' is not in the sellers.json of 'ssp.example'"),
        }
        (tmp_path / "request.json").write_bytes(msgspec.json.encode(sold_by("pub-3")))
        [line, *_] = daemon.run("explain", "request.json").out.splitlines()
        assert line.endswith("no-bid (nbr 16, incomplete_schain): " + found["pub-3"]["why"])


def test_a_flight_that_is_over(daemon: Daemon) -> None:
    """It is told as the flight's end until the daemon gives the campaign the status that follows, and then as that."""
    daemon.put_campaigns(campaign("over", end="2001-01-01T00:00:00Z"))
    flight = ("no-bid", "flight", "flight: ended 2001-01-01T00:00:00+00:00")
    status = ("no-bid", "status", "status: is ended")
    give_up = time.monotonic() + LIMIT_S
    told = flight
    while told != status:
        assert time.monotonic() < give_up
        verdict = of(explain(daemon, bid_request()), "over")
        told = verdict["verdict"], verdict["criterion"], verdict["why"]
        assert told in (flight, status)
