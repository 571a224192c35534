"""The messages of one second, each part of them encoded once however many clients want it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from dashboard.answers import CampaignLive
from dashboard.client import Encoded
from dashboard.feeds import MESSAGES, Feeds
from rtb.domain.snapshot import Point, Snapshot
from rtb.services.frame_source import MetricsSource

UPDATE = "metrics_update"
_encoder = msgspec.json.Encoder()


class Second:
    """Made for a snapshot, asked for each client, and forgotten."""

    def __init__(
        self,
        source: MetricsSource,
        feeds: Feeds,
        live: Callable[[str], CampaignLive | None],
        snapshot: Snapshot,
        point: Point | None,
        *,
        silent: Collection[str] = (),
    ) -> None:
        """The channels in `silent` have nothing new; `live` are a campaign's figures, None when it is gone."""
        self._source = source
        self._feeds = feeds
        self._live = live
        self._silent = silent
        data = {"snapshot": snapshot, "point": point}
        self._plain = Encoded(_encoder.encode({"type": UPDATE, "seq": snapshot.seq, "data": data}))
        self._updates: dict[tuple[tuple[str, ...], str], Encoded] = {}
        self._campaigns: dict[str, bytes] = {}
        self._views: dict[str, bytes] = {}
        self._channels: dict[str, Encoded] = {}

    def update(self, campaigns: tuple[str, ...] = (), instance: str = "") -> Encoded:
        """The update, with these campaigns, and the view of an instance."""
        if not campaigns and not instance:
            return self._plain
        found = self._updates.get((campaigns, instance))
        if found is None:
            parts = [self._plain.message[:-2]]
            if campaigns:
                parts.append(b'"campaigns":{%b}' % b",".join([self._campaign(name) for name in campaigns]))
            if instance:
                parts.append(b'"view":' + self._view(instance))
            found = self._updates[campaigns, instance] = Encoded(b",".join(parts) + b"}}")
        return found

    def channel(self, name: str) -> Encoded | None:
        """What a channel has to say now; None when that is nothing."""
        if name not in MESSAGES or name in self._silent:
            return None
        found = self._channels.get(name)
        if found is None:
            message = {"type": MESSAGES[name], "data": self._feeds.now(name)}
            found = self._channels[name] = Encoded(_encoder.encode(message))
        return found

    def _campaign(self, name: str) -> bytes:
        found = self._campaigns.get(name)
        if found is None:
            found = self._campaigns[name] = _encoder.encode(name) + b":" + _encoder.encode(self._live(name))
        return found

    def _view(self, name: str) -> bytes:
        found = self._views.get(name)
        if found is None:
            view = self._source.view(name)
            snapshot, points = (None, ()) if view is None else view
            data = {"instance": name, "snapshot": snapshot, "point": points[-1] if points else None}
            found = self._views[name] = _encoder.encode(data)
        return found
