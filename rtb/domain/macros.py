"""OpenRTB's substitution macros: what a bidder learns of its bid's fate through URLs and markup of its own.

Source: OpenRTB 2.6 4.4 (the macros), 4.4.1 (``${AUCTION_MIN_TO_WIN}``); 7.9.4 and 7.16 of its implementation notes.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from urllib.parse import quote

from msgspec import Struct, structs

from rtb.domain.auction import Lost, Result
from rtb.domain.intake import RemoteBid
from rtb.domain.money import MICROS, Rates
from rtb.openrtb import Bid as WireBid
from rtb.openrtb import Loss

AUDIT = "AUDIT"
"""What stands for a value that a test does not have [4.4, best practice]."""

Encodings = Mapping[str, Callable[[str], str]]
"""What the X of ``${AUCTION_PRICE:X}`` does to a value, as agreed with the bidders."""


def base64(value: str) -> str:
    """The standard Base64 of the value, padded."""
    return b64encode(value.encode()).decode()


ENCODINGS: Encodings = {"B64": base64}
"""The encoding that 4.4 gives as its example."""


class Values(Struct, frozen=True, kw_only=True):
    """The value of each macro, ``${AUCTION_`` and the field's name in capitals ``}``; "" where there is none.

    `id` is the request's, `bid_id` the response's bidid. `price`, `min_to_win` and the discount are CPM in `currency`,
    that of the bid. `imp_ts` is when the impression was shown, in Unix milliseconds.
    """

    id: str = ""
    bid_id: str = ""
    imp_id: str = ""
    seat_id: str = ""
    ad_id: str = ""
    price: str = ""
    currency: str = ""
    mbr: str = ""
    loss: str = ""
    min_to_win: str = ""
    multiplier: str = ""
    imp_ts: str = ""
    discount_pct: str = ""
    discount_cpm: str = ""


_MARK = "${AUCTION_"
_WON = str(int(Loss.WON))
_FIELDS = {name.upper(): name for name in Values.__struct_fields__}

_plain = re.compile(r"[0-9A-Za-z_.~-]*").fullmatch
"""What percent-encoding leaves as it is; prices and most ids are nothing else."""


def win_values(
    request_id: str, result: Result, rates: Rates, *, multiplier: float | None = None, test: bool = False
) -> Values:
    """The values for the bid that won.

    Args:
        request_id: of the bid request.
        result: of the imp; its winner is a RemoteBid.
        rates: those the auction ran under.
        multiplier: imp.qty.multiplier, None where the imp has none.
        test: nothing was sold, so whatever tells of a sale is AUDIT.
    """
    bid = result.winner
    assert isinstance(bid, RemoteBid)
    if test:
        return _audited(request_id, bid)
    currency, price_micros = bid.currency, result.price_micros
    return Values(
        id=request_id,
        bid_id=bid.bidid,
        imp_id=bid.impid,
        seat_id=bid.seat,
        ad_id=_adid(bid),
        price=_decimal(rates.outward_micros(price_micros, currency)),
        currency=currency,
        mbr=_decimal(round(price_micros * MICROS / bid.price_micros)),
        loss=_WON,
        min_to_win=_decimal(rates.outward_micros(result.min_to_win_micros, currency)),
        multiplier="" if multiplier is None else f"{Decimal(repr(multiplier)):f}",
    )


def loss_values(request_id: str, lost: Lost, rates: Rates, *, test: bool = False) -> Values:
    """The values for a RemoteBid that lost: why, and what would have won where its price decided.

    What the winner pays is not disclosed: price and ratio are empty, as in the tables of 4.4.1.
    """
    bid = lost.bid
    assert isinstance(bid, RemoteBid)
    if test:
        return _audited(request_id, bid)
    least = lost.min_to_win_micros
    return Values(
        id=request_id,
        bid_id=bid.bidid,
        imp_id=bid.impid,
        seat_id=bid.seat,
        ad_id=_adid(bid),
        currency=bid.currency,
        loss=str(int(lost.reason)),
        min_to_win="" if least is None else _decimal(rates.outward_micros(least, bid.currency)),
    )


def substitute(text: str, values: Values, encodings: Encodings = ENCODINGS) -> str:
    """`text`, a URL or markup, with each macro replaced by its value; what is no macro of 4.4 stays.

    Values are percent-encoded: in markup, too, a macro stands in a URL, and an id from outside must not break out of
    it. An encoding that was not agreed on gives "": whoever asks for an obfuscated price must not get the plain one.
    """
    first, *others = text.split(_MARK)
    if not others:
        return text
    parts = [first]
    for other in others:
        name, brace, rest = other.partition("}")
        field = _FIELDS.get(name) if brace else None
        if field is not None:
            value: str = getattr(values, field)
        elif brace and (encoded := _encoded(name, values, encodings)) is not None:
            value = encoded
        else:
            parts += (_MARK, other)
            continue
        parts += (value if _plain(value) else quote(value, safe=""), rest)
    return "".join(parts)


def _encoded(name: str, values: Values, encodings: Encodings) -> str | None:
    """The value of a macro with a ``:X`` suffix; None for what is no macro."""
    name, colon, code = name.partition(":")
    field = _FIELDS.get(name)
    if field is None or not colon or "{" in code:
        return None
    value: str = getattr(values, field)
    encode = encodings.get(code)
    return encode(value) if value and encode is not None else ""


def substituted(bid: WireBid, values: Values, encodings: Encodings = ENCODINGS) -> WireBid:
    """The winning bid with the macros of its markup replaced; the same object when it has none."""
    adm = bid.adm
    if adm is None or _MARK not in adm:
        return bid
    return structs.replace(bid, adm=substitute(adm, values, encodings))


def _adid(bid: RemoteBid) -> str:
    wire: WireBid = bid.content
    return wire.adid or ""


def _audited(request_id: str, bid: RemoteBid) -> Values:
    """What is known of a bid before the auction is true in a test, too."""
    return Values(
        id=request_id,
        bid_id=bid.bidid,
        imp_id=bid.impid,
        seat_id=bid.seat,
        ad_id=_adid(bid),
        currency=bid.currency,
        price=AUDIT,
        mbr=AUDIT,
        loss=AUDIT,
        min_to_win=AUDIT,
        multiplier=AUDIT,
        imp_ts=AUDIT,
        discount_pct=AUDIT,
        discount_cpm=AUDIT,
    )


def _decimal(micros: int) -> str:
    """Millionths as a plain decimal of two to six places: 910_000 is 0.91, a million 1.00."""
    whole, rest = divmod(micros, MICROS)
    if not rest % 10_000:
        return f"{whole}.{rest // 10_000:02d}"
    return f"{whole}.{f'{rest:06d}'.rstrip('0')}"
