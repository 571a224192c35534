"""A Redis Cluster that loses the node with a campaign's budget and the users' profiles, and heals by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.test_money import IMPRESSION, PRICE, QUICK, settled
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.production import Production
from tests.support.redis import Cluster
from tests.support.samples import bid_request, campaign, imp

IMPRESSIONS = 2_000
SHARE = 200


class Shop:
    """Auctions one after the other; each is answered, won or not."""

    def __init__(self, daemon: Daemon) -> None:
        self.won = self.asked = 0
        self._daemon = daemon

    def sell_until(self, done: Callable[[], bool]) -> None:
        """Run auctions until it is done."""
        give_up = time.monotonic() + LIMIT_S
        while not done():
            assert time.monotonic() < give_up, f"{self.won} of {self.asked} auctions were won"
            request = bid_request(id=str(self.asked), imp=[imp(bidfloor=PRICE)], user={"id": f"u{self.asked}"})
            answer = self._daemon.auction(request)
            assert answer.status in (200, 204)
            self.asked += 1
            self.won += answer.status == 200

    def sell(self, count: int) -> None:
        """Run auctions until so many more are won."""
        goal = self.won + count
        self.sell_until(lambda: self.won >= goal)


def test_a_node_of_the_cluster_dies(tmp_path: Path, production: Production, own_cluster: Cluster) -> None:
    """Its replica takes over: auctions are answered all the while, the budget is spent on afterwards without anybody's
    help, never beyond the limit, and accounts and ledger agree. The dead node comes back as a replica, and takes over
    when the other one dies in turn."""
    primary = own_cluster.owner("{tea}")
    replica = own_cluster.replicas[own_cluster.primaries.index(primary)]
    entry = next(node for node in own_cluster.primaries if node is not primary)
    settings = [f"broker.url={production.broker}", f"state.url={entry.url}", f"store.url={production.store}"]
    with Daemon(tmp_path, *settings, "state.cluster=true", *QUICK) as daemon:
        daemon.put_campaigns(campaign("tea", bid=PRICE, daily_budget=PRICE / 1_000 * IMPRESSIONS))
        shop = Shop(daemon)
        shop.sell(SHARE)
        for dying, heir in ((primary, replica), (replica, primary)):
            dying.kill()
            shop.sell_until(lambda heir=heir: b"role:master" in heir.command("INFO", "replication"))  # type: ignore[misc]
            shop.sell(SHARE)
            dying.start()
            shop.sell_until(
                lambda dying=dying: b"master_link_status:up" in dying.command("INFO", "replication")  # type: ignore[misc]
            )
        audited = settled([daemon])
        [row] = daemon.admin("campaigns.list")["result"]
    assert audited["findings"] == []
    assert audited["uncovered"] == []
    assert audited["rows"] == shop.won
    assert round(row["spent_today"] * 1e9) == shop.won * IMPRESSION <= IMPRESSIONS * IMPRESSION
