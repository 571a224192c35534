"""The messages of one second, each part of them encoded once however many clients want it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from dashboard.answers import CampaignLive
from dashboard.client import Client
from dashboard.feeds import MESSAGES, Feeds
from rtb.domain.snapshot import Point, Snapshot
from rtb.services.metrics import MetricsSource

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
        self._whole = _encoder.encode({"type": UPDATE, "seq": snapshot.seq, "data": data})
        self._campaigns: dict[str, bytes] = {}
        self._views: dict[str, bytes] = {}
        self._channels: dict[str, bytes] = {}

    def update(self, client: Client) -> bytes:
        """The update, with what the client has subscribed to."""
        if not client.campaigns and not client.instance:
            return self._whole
        parts = [self._whole[:-2]]
        if client.campaigns:
            parts.append(b'"campaigns":{%b}' % b",".join([self._campaign(name) for name in sorted(client.campaigns)]))
        if client.instance:
            parts.append(b'"view":' + self._view(client.instance))
        return b",".join(parts) + b"}}"

    def channel(self, name: str) -> bytes | None:
        """What a channel has to say now; None when that is nothing."""
        if name not in MESSAGES or name in self._silent:
            return None
        found = self._channels.get(name)
        if found is None:
            message = {"type": MESSAGES[name], "data": self._feeds.now(name)}
            found = self._channels[name] = _encoder.encode(message)
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
