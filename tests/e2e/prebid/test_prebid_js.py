"""Prebid.js in a real browser asks a daemon for bids: it is a Prebid Server to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import expect

from tests.e2e.prebid.publisher import Publisher, serving
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.samples import campaign


def ad_unit(code: str = "top", **fields: Any) -> dict[str, Any]:
    """A 300x250 banner, over plain HTTP as everything here; all bidders of the exchange may bid."""
    return {
        "code": code,
        "mediaTypes": {"banner": {"sizes": [[300, 250]]}},
        "ortb2Imp": {"secure": 0},
        "bids": [{"bidder": "rtb", "params": {}}],
        **fields,
    }


def picture_ad(name: str, site: str, bid: float = 3.27) -> dict[str, Any]:
    """A campaign whose ad is a picture of the publisher's site."""
    picture = {"image_url": f"{site}/ad.png", "landing_page": f"https://{name}.test/", "secure": False}
    creative = {"id": f"{name}-ad", "w": 300, "h": 250, **picture}
    return campaign(name, bid=bid, daily_budget=10.0, creatives=[creative])


async def until(holds: Callable[[], bool]) -> None:
    """Return once it does."""
    give_up = time.monotonic() + LIMIT_S
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


def figures(daemon: Daemon, name: str) -> dict[str, Any]:
    """What `rtb campaigns stats` shows of a campaign."""
    row: dict[str, Any] = daemon.admin("campaigns.stats", ids=[name])["result"]["rows"][0]
    return {key: row[key] for key in ("wins", "impressions", "cost")}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that may call servers here; each test puts its own campaigns and bidders."""
    folder = tmp_path_factory.mktemp("prebid")
    (folder / "bidders.toml").touch()
    local = [f'{section}.allow=["127.0.0.0/8"]' for section in ("bidders", "notices")]
    with Daemon(folder, 'bidders.file="bidders.toml"', *local) as running:
        yield running


async def test_no_bid_then_one_that_is_rendered_won_and_billed(
    daemon: Daemon, publisher: Publisher, page_errors: list[str]
) -> None:
    """Another bids 2.00, so that tea pays 2.01, bucket 2.00. Rendering fires win, burl and pixel; it is billed once."""
    told = await publisher.publish(daemon.url, ad_unit("nobody"))
    assert told["bids"] == []
    assert [event["adUnitCode"] for event in await publisher.events("noBid")] == ["nobody"]

    daemon.put_campaigns(picture_ad("tea", publisher.url), campaign("rival"))
    told = await publisher.publish(daemon.url, ad_unit())
    [bid] = told["bids"]
    assert (bid["bidder"], bid["cpm"], bid["currency"], bid["mediaType"]) == ("rtb", 2.01, "USD", "banner")
    assert (bid["width"], bid["height"], bid["creativeId"]) == (300, 250, "tea-ad")
    assert bid["meta"]["advertiserDomains"] == ["tea.test"]
    targeting = told["targeting"]["top"]
    assert (targeting["hb_pb"], targeting["hb_bidder"], targeting["hb_size"]) == ("2.00", "rtb", "300x250")

    async with (
        publisher.page.expect_request(lambda request: "/t/w/" in request.url) as win,
        publisher.page.expect_request(lambda request: "/t/b/" in request.url) as billing,
    ):
        await publisher.render(bid["adId"])
    assert (await win.value).url.endswith("?price=2.01")
    assert (await billing.value).url.startswith(daemon.url)
    picture = publisher.page.frame_locator("#ad").frame_locator("iframe").locator("a img")
    await expect(picture).to_have_attribute("src", f"{publisher.url}/ad.png")
    assert len(await publisher.events("adRenderSucceeded")) == 1
    await until(lambda: figures(daemon, "tea") == {"wins": 1, "impressions": 1, "cost": 0.00201})
    assert daemon.admin("audit")["result"]["balanced"]
    assert page_errors == []


async def test_a_page_that_compresses_and_asks_for_more(
    daemon: Daemon, publisher: Publisher, page_errors: list[str]
) -> None:
    """Gzip, a header of its own (so the browser asks first), two ad units, steps of 0.05, and who did not bid."""
    daemon.put_campaigns(picture_ad("mint", publisher.url, bid=4.27))
    s2s = {
        "endpointCompression": True,
        "customHeaders": {"x-page": "news"},
        "extPrebid": {
            "targeting": {"pricegranularity": {"ranges": [{"max": 5, "increment": 0.05}]}, "includebidderkeys": True},
            "returnallbidstatus": True,
        },
    }
    units = [
        ad_unit(code, ortb2Imp={"secure": 0, "bidfloor": floor}) for code, floor in (("dear", 9.0), ("fair", 4.19))
    ]
    async with publisher.page.expect_request(
        lambda request: "/openrtb2/auction" in request.url and request.method == "POST"
    ) as asking:
        told = await publisher.publish(daemon.url, *units, s2s=s2s)
    sent = await asking.value
    assert sent.url.endswith("?gzip=1")
    assert (sent.post_data_buffer or b"").startswith(b"\x1f\x8b")
    [bid] = told["bids"]
    assert (bid["adUnitCode"], bid["cpm"]) == ("fair", 4.19)
    # Keys without the bidder's name are Prebid.js' own, by the granularity of the page.
    ours = {key: value for key, value in bid["adserverTargeting"].items() if key.endswith("_rtb")}
    assert ours == {"hb_pb_rtb": "4.15", "hb_bidder_rtb": "rtb", "hb_size_rtb": "300x250"}
    [analytics] = await publisher.events("pbsAnalytics")
    assert analytics["seatnonbid"] == [{"seat": "house", "nonbid": [{"impid": "dear", "statuscode": 0}]}]
    assert page_errors == []


async def test_a_remote_bidder_wins_is_told_and_billed(
    daemon: Daemon, publisher: Publisher, page_errors: list[str]
) -> None:
    """The page names it. Its own nurl is called at the win, its burl when the page has shown the ad."""
    called: asyncio.Queue[str] = asyncio.Queue()

    async def bid(request: web.Request) -> web.Response:
        asked = await request.json()
        url = f"http://{request.host}"
        offer = {
            "id": "1",
            "impid": asked["imp"][0]["id"],
            "price": 4.0,
            "adm": f'<img src="{publisher.url}/ad.png">',
            "adomain": ["acme.test"],
            "crid": "acme-ad",
            "w": 300,
            "h": 250,
            "nurl": f"{url}/nurl?price=${{AUCTION_PRICE}}",
            "burl": f"{url}/burl?price=${{AUCTION_PRICE}}",
        }
        return web.json_response({"id": asked["id"], "seatbid": [{"seat": "acme-1", "bid": [offer]}]})

    async def notice(request: web.Request) -> web.Response:
        called.put_nowait(request.path_qs)
        return web.Response()

    dsp = web.Application()
    dsp.add_routes([web.post("/bid", bid), web.get("/nurl", notice), web.get("/burl", notice)])
    async with serving(dsp) as url:
        (daemon.folder / "bidders.toml").write_text(f'[[bidder]]\nname = "acme"\nurl = "{url}/bid"\n')
        await until(lambda: bool(daemon.admin("bidders.list")["result"]["bidders"]))
        daemon.put_campaigns(campaign("dearer", bid=5.0))
        unit = ad_unit(ortb2Imp={"secure": 0, "bidfloor": 3.5}, bids=[{"bidder": "acme", "params": {}}])
        told = await publisher.publish(daemon.url, unit, s2s={"bidders": ["acme"]})
        [shown] = told["bids"]
        assert (shown["bidder"], shown["cpm"], shown["creativeId"]) == ("acme", 3.5, "acme-ad")
        assert await asyncio.wait_for(called.get(), LIMIT_S) == "/nurl?price=3.50"
        assert called.empty()
        await publisher.render(shown["adId"])
        assert await asyncio.wait_for(called.get(), LIMIT_S) == "/burl?price=3.50"
    assert page_errors == []
