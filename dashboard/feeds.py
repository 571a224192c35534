"""What the channels tell: the instances, the bidders, the queues, as they are now; the REST API answers the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dashboard.answers import BidderList, InstanceList, QueueList, QueueNow
from rtb.services.frame_source import MetricsSource
from rtb.services.queue_monitor import QueueReport

AUCTIONS, INSTANCES, BIDDERS, QUEUES = "auctions", "instances", "bidders", "queues"
MESSAGES: Mapping[str, str] = {INSTANCES: "instance", BIDDERS: "bidder", QUEUES: "queue"}
"""Channel to the type of its messages, of those that tell how things stand; `auctions` tells events."""
CHANNELS = (AUCTIONS, *MESSAGES)


class Feeds:
    """Reads them off the services."""

    def __init__(
        self,
        source: MetricsSource,
        queues: Callable[[], QueueReport] = QueueReport,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        """`queues` is the last look at the broker, `waiting` how many messages wait for it in this process."""
        self._source = source
        self._queues = queues
        self._waiting = waiting

    def instances(self) -> InstanceList:
        """Every instance heard of lately."""
        return InstanceList(self._source.latest.time, list(self._source.instances()))

    def bidders(self) -> BidderList:
        """Every bidder over HTTP."""
        return BidderList(self._source.latest.time, list(self._source.bidders()))

    def queues(self) -> QueueNow:
        """The broker's queues."""
        report = self._queues()
        return QueueNow(report.time, list(report.queues), report.problem, self._waiting())

    def queue_list(self) -> QueueList:
        """The same with this process's minutes."""
        report = self._queues()
        return QueueList(report.time, list(report.queues), report.problem, self._waiting(), list(report.minutes))

    def looked(self) -> float:
        """When the queues were last looked at."""
        return self._queues().time

    def now(self, channel: str) -> Any:
        """What a channel of MESSAGES tells now."""
        if channel == INSTANCES:
            return self.instances()
        return self.bidders() if channel == BIDDERS else self.queues()
