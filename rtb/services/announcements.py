"""What a daemon tells the others about the catalogue: campaign updates on ``ad.campaigns``."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from rtb import messages
from rtb.domain import campaign as campaigns_
from rtb.domain.campaign import Campaign
from rtb.messages import CampaignUpdate, MessageType
from rtb.ports import Clock, Message
from rtb.services import topology
from rtb.services.outbox import Outbox

MANY = 64
"""Above so many campaigns at once the others are told to look, instead of what there is to see."""
LONGEST = messages.MAX_BODY - 1_024


class Announcements:
    """Posts what was written; ``Campaigns(repository, house, announce=Announcements(...).campaigns)``."""

    def __init__(self, outbox: Outbox, clock: Clock, instance: str) -> None:
        """Speak for `instance`, which applies its own changes itself."""
        self._outbox = outbox
        self._clock = clock
        self._instance = instance
        self._looks = 0

    def campaigns(self, written: Sequence[Campaign]) -> None:
        """Announce campaigns that the repository has."""
        if len(written) > MANY:
            self._tell_to_look()
            return
        for campaign in written:
            value = msgspec.Raw(campaigns_.encode(campaign))
            if len(value) > LONGEST:
                self._tell_to_look()
            else:
                update = CampaignUpdate(campaign=value, persisted=True, origin=self._instance)
                self._post(update, message_id(campaign.id, str(campaign.version)))

    def _tell_to_look(self) -> None:
        self._looks += 1
        update = CampaignUpdate(persisted=True, origin=self._instance)
        self._post(update, message_id(self._instance, str(self._looks)))

    def _post(self, update: CampaignUpdate, message_id: str) -> None:
        kind, now = MessageType.CAMPAIGN_UPDATE, self._clock.time()
        body = messages.encode(kind, update, message_id=message_id, timestamp=now)
        self._outbox.post(*topology.ROUTES[kind], Message(body=body, message_id=message_id, timestamp=now))


def message_id(*parts: str) -> str:
    """The same id for the same thing, whoever tells it and how often; AMQP takes 255 bytes, names may be longer."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
