"""Every error that rtb raises on purpose.

    RtbError
    ├── ConfigError        a setting is unknown, missing or out of range; names file and key
    ├── BadRequest         a bid request breaks OpenRTB (answered with HTTP 400); names the field
    │   └── TooLarge       ... by its size (HTTP 413)
    ├── Malformed          a message on a queue cannot be understood; it is dead-lettered with this reason
    ├── Transient          what one message needs is not there yet; it is tried again, at most three times
    ├── InvalidCampaign    a campaign definition is wrong; names campaign and field
    ├── NotFound           a command names a campaign that does not exist
    ├── BidderError        a bidder could not answer
    ├── HttpError          a server outside gave no answer to a request
    │   └── HttpRefused    ... because our own policy keeps us from asking it
    ├── BrokerError        the broker refused or is away
    │   └── Unroutable     a mandatory message matched no queue
    ├── StoreError         the repository or the state store refused or is away
    │   └── StaleEpoch     the budgets were rebuilt meanwhile; what was billed before is billed again
    └── AdminError         no daemon answers on the admin socket, or it refused the command

Each message is one line that says what broke and what to do about it. A no-bid is a value, never an error.
"""

from __future__ import annotations


class RtbError(Exception):
    """Base of all of them: catch it at a process edge and print one line."""


class ConfigError(RtbError):
    """A setting is unknown, missing, of the wrong type or out of range."""


class BadRequest(RtbError):
    """A bid request breaks OpenRTB; the message names the field, as in ``imp[0].banner.w: ...``."""


class TooLarge(BadRequest):
    """A body or a nesting depth is over its limit."""


class Malformed(RtbError):
    """A queue message is not JSON, of an unknown type, or does not fit its schema."""


class Transient(RtbError):
    """What one message alone depends on is missing or refuses; handling it later may succeed."""


class InvalidCampaign(RtbError):
    """A campaign definition is wrong; the message names the campaign and the field."""


class NotFound(RtbError):
    """What a command names does not exist."""


class BidderError(RtbError):
    """A bidder failed; the auction goes on without it."""


class HttpError(RtbError):
    """A request to a server outside got no response."""


class HttpRefused(HttpError):
    """A URL leads where this daemon does not go, or is none; nothing was sent."""


class BrokerError(RtbError):
    """The broker refused an operation or cannot be reached."""


class Unroutable(BrokerError):
    """A mandatory message matched no queue (AMQP basic.return 312)."""


class StoreError(RtbError):
    """The repository or the state store refused an operation or cannot be reached."""


class StaleEpoch(StoreError):
    """The budget epoch has changed since; nothing was written."""


class AdminError(RtbError):
    """No daemon answers on the admin socket, or it refused the command."""
