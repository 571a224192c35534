"""The way a request came, against what it says and the files of those it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtb import openrtb
from rtb.adapters.supply_files import supply_files
from rtb.domain.schain import Fault, SchainPolicy, SupplyCheck, SupplyFiles, authorised_by, sellers_of
from rtb.errors import ConfigError
from rtb.openrtb import BidRequest, NoBid

SELLERS = b"""{"version":"1.0","sellers":[
  {"seller_id":"p1","seller_type":"PUBLISHER","domain":"news.test"},
  {"seller_id":"i1","seller_type":"intermediary"},
  {"seller_id":7,"seller_type":"BOTH"}]}"""
ADS_TXT = """# ads.txt of news.test
contact=ads@news.test
SSP.test, p1, DIRECT, f00
ssp.test ,i1 , reseller # by way of them
exchange.test, x9, RESELLER; ext
nonsense
bad.test, , DIRECT
"""
FILES = SupplyFiles(sellers={"ssp.test": sellers_of(SELLERS)}, ads_txt={"news.test": authorised_by(ADS_TXT)})


def node(asi: str | None, sid: str | None, hp: int | None = 1) -> dict[str, Any]:
    """A hop."""
    return {"asi": asi, "sid": sid, "hp": hp}


def request(*nodes: dict[str, Any], complete: int = 1, domain: str = "news.test", old: bool = False) -> BidRequest:
    """From a site, by these hops; `old`: where 2.5 has them."""
    chain = {"ver": "1.0", "complete": complete, "nodes": list(nodes)}
    source = {"ext": {"schain": chain}} if old else {"schain": chain}
    message = {"id": "r", "imp": [{"id": "1", "banner": {}}], "site": {"domain": domain}, "source": source}
    return openrtb.decode_request(json.dumps(message).encode())


def fault(sent: BidRequest, **policy: Any) -> Fault | None:
    """What is wrong with it."""
    return SupplyCheck(SchainPolicy(**{"on_fault": "refuse", **policy}), FILES).fault(sent)


@pytest.mark.parametrize(
    "sent",
    [
        request(node("ssp.test", "p1")),
        request(node("SSP.test", "p1"), node("ssp.test", "i1"), node("exchange.test", "x9")),
        request(node("ssp.test", "p1", None), old=True),
        request(node("other.test", "any"), domain="elsewhere.test"),
        openrtb.decode_request(b'{"id":"r","imp":[{"id":"1","banner":{}}]}'),
    ],
)
def test_a_chain_that_is_whole_and_known_is_right(sent: BidRequest) -> None:
    """What is not at hand is not held against it, nor is a request without one."""
    assert fault(sent) is None


@pytest.mark.parametrize(
    ("sent", "nbr", "why"),
    [
        (request(node("ssp.test", "p1"), complete=0), 16, "schain.complete: is not 1"),
        (request(), 16, "schain.nodes: 0 hops, 1 to 3 are taken"),
        (request(*[node("exchange.test", "x9")] * 4), 16, "schain.nodes: 4 hops, 1 to 3 are taken"),
        (request(node("ssp.test", None)), 16, "schain.nodes[0]: asi and sid are required"),
        (request(node("ssp.test", "p1"), node("exchange.test", "x9", 0)), 16, "schain.nodes[1].hp: is not 1"),
        (request(node("Shady.test", "1")), 17, "schain.nodes[0].asi: Shady.test is blocked"),
        (request(node("ssp.test", "p2")), 16, "schain.nodes[0].sid: 'p2' is not in the sellers.json of 'ssp.test'"),
        (request(node("ssp.test", "i1")), 16, "schain.nodes[0].sid: 'i1' is intermediary in sellers.json"),
        (
            request(node("exchange.test", "x9"), node("ssp.test", "p1")),
            16,
            "schain.nodes[1].sid: 'p1' is publisher in sellers.json",
        ),
        (
            request(node("ssp.test", "7")),
            12,
            "schain.nodes[0]: 'ssp.test', '7' is not in the ads.txt of news.test",
        ),
    ],
)
def test_the_first_thing_wrong_is_said(sent: BidRequest, nbr: int, why: str) -> None:
    """With the reason of OpenRTB 3.0 to answer with; the line names the node."""
    assert fault(sent, most_nodes=3, blocked=("shady.test",)) == Fault(NoBid(nbr), why)


def test_what_is_asked_for_is_configured() -> None:
    """A chain may be required, or nobody may look."""
    bare = openrtb.decode_request(b'{"id":"r","imp":[{"id":"1","banner":{}}]}')
    assert fault(bare, required=True) == Fault(NoBid.INCOMPLETE_SCHAIN, "schain: absent")
    assert fault(bare, required=True, on_fault="ignore") is None


def test_files_are_read_from_a_folder(tmp_path: Path) -> None:
    """One a domain; one that is broken is named."""
    with pytest.raises(ConfigError, match="no such folder"):
        supply_files(tmp_path / "none")
    assert supply_files(tmp_path) == SupplyFiles()
    (tmp_path / "sellers").mkdir()
    (tmp_path / "ads.txt").mkdir()
    (tmp_path / "sellers" / "ssp.test.json").write_bytes(SELLERS)
    (tmp_path / "ads.txt" / "news.test.txt").write_text(ADS_TXT, encoding="utf-8")
    assert supply_files(tmp_path) == FILES
    assert FILES.ads_txt["news.test"] == {("ssp.test", "p1"), ("ssp.test", "i1"), ("exchange.test", "x9")}
    (tmp_path / "sellers" / "bad.test.json").write_bytes(b'{"sellers":[{"seller_id":"1","seller_type":"KING"}]}')
    with pytest.raises(ConfigError, match=r"bad\.test\.json: not a sellers\.json: 'KING'"):
        supply_files(tmp_path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"sellers":3}', b"\xff"])
def test_what_is_no_sellers_json_is_refused(text: bytes) -> None:
    """Not half read."""
    with pytest.raises(ConfigError):
        sellers_of(text)
