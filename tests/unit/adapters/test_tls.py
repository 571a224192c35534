"""What an error says of TLS."""

from __future__ import annotations

import ssl
from itertools import pairwise

import pytest

from rtb.adapters import tls


def chain(*errors: BaseException) -> BaseException:
    """The first, that came while the next was handled, and so on."""
    for error, context in pairwise(errors):
        error.__context__ = context
    return errors[0]


def refused() -> ssl.SSLError:
    """What a server that speaks no TLS brings about."""
    said = ssl.MemoryBIO()
    said.write(b"AMQP\x00\x00\x09\x01")
    side = ssl.create_default_context().wrap_bio(said, ssl.MemoryBIO(), server_hostname="broker.test")
    with pytest.raises(ssl.SSLError) as caught:
        side.do_handshake()
    return caught.value


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_refusal_is_found_however_deep(depth: int) -> None:
    """Beneath what libraries raised on top of it."""
    found = tls.refusal(chain(*(OSError(n) for n in range(depth)), refused()), "broker.url ?cafile=FILE")
    assert found == "TLS fails: wrong version number"


def test_another_error_is_no_refusal() -> None:
    """Nor is one whose context goes round in a circle."""
    assert tls.refusal(ConnectionRefusedError(), "x") is None
    one, other = OSError("one"), OSError("other")
    one.__context__, other.__context__ = other, one
    assert tls.refusal(one, "x") is None
