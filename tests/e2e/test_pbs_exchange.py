"""Prebid Server's exchange tests over HTTP: a daemon, its bidders from a file, and servers that answer as a case says.

Prebid Server hands all bids on at their own prices; ours sells each imp to the dearest. So each case is sent as a first
price auction, and the dearest bid of an imp must come back as Prebid Server answers it: under that bidder code, at that
price, of that media, with those key-values. Left aside are the keys of things this exchange does not have
(`NO_SUCH_KEYS`). See tests/support/pbs_cases.py.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rtb.openrtb import Loss
from tests.support import pbs_cases
from tests.support.daemon import Daemon
from tests.support.pbs_cases import NAMES, REFUSED, STRICTER

pytestmark = pbs_cases.needs_data

NO_SUCH_KEYS = re.compile("hb_(cache_host|cache_path|pb_cat_dur)(_.*)?")
"""There is no cache of bids here, and no table of an ad server's categories."""
BINARY = {0.3: ("0.20", "0.30"), 0.6: ("0.50", "0.60")}
"""Price -> Prebid Server's bucket and ours: in binary 0.3 is less than three steps of 0.1, in decimals it is three."""
SEATS = {"extra-bids-with-aliases-adaptercode.json": {"groupm": "pmbidder"}}
"""Under a seat that its request does not allow in alternatebiddercodes a bidder bids as itself; that test lets it."""
STATUS = {Loss.SIZE: 351, Loss.NOT_SECURE: 352}
"""The status codes of refused bids, as the cases have them."""
MULTIBID = {
    "multi-bid-default-bid-limit.json": {"rubicon": 2, "appnexus": 2},
    "multi-bids-error.json": {"pubmatic": 9},
    "multi-bids-with-extra-bids.json": {"pubmatic": 2},
}
"""How many bids of each code their requests take. Prebid Server hands more on, without key-values."""
BIDDERS = ("appnexus", "audiencenetwork", "pubmatic", "rubicon")


class Bidders(ThreadingHTTPServer):
    """All bidders, each at a path of its own: they answer as `case` says, and nobody else may be asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Bidder)
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def play(self, case: dict[str, Any]) -> None:
        """Answer as this case does; the bidder of an alias is asked as itself."""
        aliases = pbs_cases.request(case).get("ext", {}).get("prebid", {}).get("aliases", {})
        self.asked = []
        self.answers = {
            aliases.get(name, name).lower(): pbs_cases.seats(outgoing["mockResponse"])
            for name, outgoing in case["outgoingRequests"].items()
        }

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Bidder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Bidders

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = self.path.strip("/")
        self.server.asked.append(name)
        answer = json.dumps({"id": asked["id"], "seatbid": self.server.answers[name]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        """Quietly."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Bidders]]:
    """A daemon and the bidders of its file."""
    folder = tmp_path_factory.mktemp("pbs")
    bidders = Bidders()
    url = f"http://127.0.0.1:{bidders.server_address[1]}"
    tables = (f'[[bidder]]\nname = "{name}"\nurl = "{url}/{name}"\nwarm = 0\n' for name in BIDDERS)
    (folder / "bidders.toml").write_text("".join(tables))
    settings = ('bidders.file="bidders.toml"', 'bidders.allow=["127.0.0.0/8"]')
    try:
        with Daemon(folder, *settings) as daemon:
            yield daemon, bidders
    finally:
        bidders.stop()


@pytest.mark.parametrize("name", NAMES)
def test_the_dearest_bid_comes_back_as_prebid_server_answers_it(name: str, market: tuple[Daemon, Bidders]) -> None:
    """Seat, price, size, creative, media and key-values; only those are asked whom the imps name."""
    daemon, bidders = market
    case = pbs_cases.load(name)
    bidders.play(case)
    answer = _auction(daemon, case, at=1)
    assert sorted(bidders.asked) == sorted(bidders.answers)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for seat in answer.get("seatbid", ()):
        for bid in seat["bid"]:
            found.setdefault(bid["impid"], (seat["seat"], bid))  # further bids of an imp come behind its winner
    expected = _dearest(name, case)
    assert found.keys() == expected.keys()
    for impid, (seat, theirs) in expected.items():
        our_seat, ours = found[impid]
        assert our_seat == seat
        for field in ("price", "w", "h", "crid", "cat", "dealid"):
            assert ours.get(field) == theirs.get(field)
        said = ours["ext"]["prebid"]
        prebid = theirs["ext"]["prebid"]
        assert said["type"] == prebid.get("type", "video")
        assert said.get("targeting") == _renamed(prebid.get("targeting"), name, ours["price"])
        assert "burl" in ours or pbs_cases.request(case).get("test") == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_said_otherwise_is_a_second_price_auction(name: str, market: tuple[Daemon, Bidders]) -> None:
    """The winner pays a cent more than the next seat's bid, a cent where there is none; key-values tell that price."""
    daemon, bidders = market
    case = pbs_cases.load(name)
    bidders.play(case)
    answer = _auction(daemon, case, at=2)
    winners: dict[str, dict[str, Any]] = {}
    for seat in answer.get("seatbid", ()):
        for bid in seat["bid"]:
            winners.setdefault(bid["impid"], bid)
    assert winners.keys() == _dearest(name, case).keys()
    for impid, bid in winners.items():
        offers = _offers(name, case, impid)
        dearest = max(offers, key=lambda offer: offer[1])
        others = [price for who, price in offers if who != dearest[0]]
        assert bid["price"] == pytest.approx(min(dearest[1], max(others, default=0.0) + 0.01))
        targeting = bid["ext"]["prebid"].get("targeting", {})
        if "hb_pb" in targeting:
            steps = int(
                bid["price"] * 10 + 1e-6
            )  # all ranges of theirs are of 0.10, or the price is below the first step
            assert float(targeting["hb_pb"]) == pytest.approx(steps / 10)


@pytest.mark.parametrize(("name", "most"), sorted(MULTIBID.items()))
def test_further_bids_of_the_codes_that_are_named(
    name: str, most: dict[str, int], market: tuple[Daemon, Bidders]
) -> None:
    """As many as multibid says, at the prices, with the codes and the key-values that Prebid Server gives them."""
    daemon, bidders = market
    case = pbs_cases.load(name)
    bidders.play(case)
    answer = _auction(daemon, case, at=1)
    for impid in _dearest(name, case):
        ours: dict[str, list[dict[str, Any]]] = {}
        theirs: dict[str, list[dict[str, Any]]] = {}
        for each in answer["seatbid"]:
            for bid in each["bid"]:
                if bid["impid"] == impid:
                    ours.setdefault(each["seat"], []).append(_further(bid, name))
        for bid in sorted(pbs_cases.passed(name, case), key=lambda bid: -bid["price"]):
            if bid["impid"] == impid:
                theirs.setdefault(bid["seat"], []).append(_further(bid, name))
        assert ours == {seat: found[: most[seat]] for seat, found in theirs.items()}
    warned = [each["code"] for each in answer["ext"].get("warnings", {}).get("general", ()) if each["code"] == 10_006]
    told = case["response"].get("ext", {}).get("warnings", {}).get("general", ())
    assert warned == [each["code"] for each in told if each["code"] == 10_006]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_bids_are_told(name: str, market: tuple[Daemon, Bidders]) -> None:
    """In ext.seatnonbid, with the status code that Prebid Server gives."""
    daemon, bidders = market
    case = pbs_cases.load(name)
    bidders.play(case)
    answer = _auction(daemon, case, ext={"prebid": {"returnallbidstatus": True}})
    told = {seat["seat"]: [each["statuscode"] for each in seat["nonbid"]] for seat in answer["ext"]["seatnonbid"]}
    assert told == {
        bidder: [STATUS[REFUSED[name][bid["id"]]]]
        for bidder, outgoing in case["outgoingRequests"].items()
        for seat in pbs_cases.seats(outgoing["mockResponse"])
        for bid in seat["bid"]
        if bid["id"] in REFUSED[name]
    }


def _auction(daemon: Daemon, case: dict[str, Any], **fields: Any) -> dict[str, Any]:
    asked = {**pbs_cases.request(case), **fields}
    response = daemon.auction(asked)
    assert response.status == 200, response
    answer: dict[str, Any] = json.loads(response.body)
    assert answer["id"] == asked["id"]
    return answer


def _dearest(name: str, case: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """impid -> the dearest bid that Prebid Server answers with, and its seat."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for bid in pbs_cases.passed(name, case):
        if bid["impid"] not in found or found[bid["impid"]][1]["price"] < bid["price"]:
            found[bid["impid"]] = (SEATS.get(name, {}).get(bid["seat"], bid["seat"]), bid)
    return found


def _offers(name: str, case: dict[str, Any], impid: str) -> list[tuple[tuple[str, str], float]]:
    """(bidder and seat, price) of the valid bids on an imp."""
    refused = {**REFUSED.get(name, {}), **STRICTER.get(name, {})}
    return [
        ((bidder, seat["seat"]), bid["price"])
        for bidder, outgoing in case["outgoingRequests"].items()
        for seat in pbs_cases.seats(outgoing["mockResponse"])
        for bid in seat["bid"]
        if bid["impid"] == impid and bid["id"] not in refused
    ]


def _renamed(targeting: dict[str, str] | None, name: str, price: float) -> dict[str, str] | None:
    """Their key-values without those of NO_SUCH_KEYS, under our seats, the buckets of BINARY in decimals."""
    if targeting is None:
        return None
    kept = {key: value for key, value in targeting.items() if not NO_SUCH_KEYS.fullmatch(key)}
    for key in kept:
        if key.startswith("hb_pb") and price in BINARY:
            theirs, kept[key] = kept[key], BINARY[price][1]
            assert theirs == BINARY[price][0]
    for theirs, ours in SEATS.get(name, {}).items():
        kept = {
            key.replace(f"_{theirs}", f"_{ours}"): ours if value == theirs else value for key, value in kept.items()
        }
    return kept


def _further(bid: dict[str, Any], name: str) -> dict[str, Any]:
    """What of a bid must be alike."""
    prebid = bid["ext"]["prebid"]
    return {
        "price": bid["price"],
        "crid": bid["crid"],
        "type": prebid.get("type", "video"),
        "targetbiddercode": prebid.get("targetbiddercode"),
        "targeting": _renamed(prebid.get("targeting"), name, bid["price"]) or None,
    }
