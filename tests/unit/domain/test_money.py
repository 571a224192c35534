"""Money: exact inside, and never in the wrong direction when it must round."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.domain import money
from rtb.domain.money import Rates

amounts = st.integers(0, 10**12)
rates = st.floats(min_value=1e-4, max_value=1e4)


@pytest.mark.parametrize(
    ("cpm", "micros"),
    [
        (0.0, 0),
        (0.85, 850_000),
        (1.0, 1_000_000),
        (0.1 + 0.2, 300_000),
        (0.000001, 1),
        (0.0000005, 0),
        (0.0000015, 2),
        (1.1, 1_100_000),
        (1_000_000.0, 10**12),
    ],
)
def test_micros_of_a_price(cpm: float, micros: int) -> None:
    """1.00 CPM is a million; below a micro, half goes to even."""
    assert money.to_micros(cpm) == micros


@pytest.mark.parametrize("cpm", [math.nan, math.inf, -math.inf, -0.000001, 1_000_000.000001, 1e300])
def test_what_is_no_price(cpm: float) -> None:
    """NaN, the infinities, negatives and absurd magnitudes are refused."""
    with pytest.raises(ValueError, match="price"):
        money.to_micros(cpm)


@given(amounts)
def test_micros_survive_the_wire(micros: int) -> None:
    """To a wire float and back is exact, up to a million CPM."""
    assert money.to_micros(money.to_cpm(micros)) == micros


@given(st.decimals(min_value=0, max_value=1_000_000, places=6))
def test_six_decimals_are_exact(price: Decimal) -> None:
    """Whatever six decimals a bidder writes are the micros it meant."""
    assert money.to_micros(float(price)) == int(price * 1_000_000)


def test_an_impression_costs_its_micros_in_nanos() -> None:
    """3.70 CPM is 0.0037 a thousandth, 3,700,000 nanos."""
    assert money.impression_nanos(3_700_000) == 3_700_000


@pytest.mark.parametrize(
    ("micros", "multiplier", "nanos"),
    [
        (1_000_000, 14.2, 14_200_000),
        (5, 0.1, 0),  # 0.5: half goes to even
        (15, 0.1, 2),  # 1.5
        (25, 0.1, 2),  # 2.5
        (3, 0.5, 2),  # 1.5
        (7, 0.3, 2),  # 2.1
        (1, 1e9, 10**9),
        (0, 14.2, 0),
    ],
)
def test_a_multiplier_rounds_half_to_even(micros: int, multiplier: float, nanos: int) -> None:
    """3.2.31: price / 1000 x multiplier, in the decimals that were sent; worked out by hand."""
    assert money.impression_nanos(micros, multiplier) == nanos


@given(amounts, st.decimals(min_value="0.001", max_value=1000, places=3))
def test_a_multiplier_agrees_with_decimal_arithmetic(micros: int, multiplier: Decimal) -> None:
    """Against Python's decimal module, which shares nothing with it."""
    expected = (Decimal(micros) * multiplier).quantize(Decimal(1), ROUND_HALF_EVEN)
    assert money.impression_nanos(micros, float(multiplier)) == int(expected)


@pytest.mark.parametrize(("amount", "nanos"), [(0.0, 0), (0.1, 10**8), (50.0, 5 * 10**10), (9_000_000.0, 9 * 10**15)])
def test_nanos_of_an_amount(amount: float, nanos: int) -> None:
    """Budgets are written in units and kept in nanos, up to what every store keeps exactly."""
    assert money.unit_nanos(amount) == nanos


@pytest.mark.parametrize("amount", [math.nan, math.inf, -0.01, 9_000_000.1, 1e300])
def test_what_is_no_amount(amount: float) -> None:
    """NaN, infinities, negatives and more than 9 x 10^15 nanos are refused."""
    with pytest.raises(ValueError, match="amount"):
        money.unit_nanos(amount)


def test_rates_by_hand() -> None:
    """At 1.10 USD a EUR: floors go up, bids down, answers up."""
    usd = Rates("USD", {"EUR": 1.1})
    assert (usd.inward_micros(1_000_000, "EUR"), usd.bid_micros(1_000_000, "EUR")) == (1_100_000, 1_100_000)
    assert (usd.inward_micros(1, "EUR"), usd.bid_micros(1, "EUR")) == (2, 1)  # 1.1 micros
    assert usd.outward_micros(1_100_000, "EUR") == 1_000_000
    assert usd.outward_micros(1, "EUR") == 1  # 0.909...
    assert usd.outward_micros(2, "EUR") == 2  # 1.818...


def test_the_exchange_s_own_currency_is_never_converted() -> None:
    """Even where somebody lists a rate for it."""
    usd = Rates("USD", {"USD": 2.0})
    assert (usd.inward_micros(7, "USD"), usd.bid_micros(7, "USD"), usd.outward_micros(7, "USD")) == (7, 7, 7)


def test_an_unknown_currency_has_no_rate() -> None:
    """Asked before, it is no; converted all the same, it is an error."""
    usd = Rates()
    assert usd.knows("USD")
    assert not usd.knows("EUR")
    for convert in (usd.inward_micros, usd.bid_micros, usd.outward_micros):
        with pytest.raises(KeyError):
            convert(1, "EUR")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_rate(rate: float) -> None:
    """A rate is a positive finite number."""
    with pytest.raises(ValueError, match="rate of EUR"):
        Rates("USD", {"EUR": rate})


@given(amounts, rates)
@settings(deadline=None)
def test_directions(micros: int, rate: float) -> None:
    """A floor is never lowered and a bid never raised by conversion; the two differ by a micro at most."""
    known = Rates("USD", {"EUR": rate})
    floor, bid = known.inward_micros(micros, "EUR"), known.bid_micros(micros, "EUR")
    with localcontext(prec=60):
        assert bid <= micros * Decimal(str(rate)) <= floor
    assert floor - bid in {0, 1}


@given(amounts, amounts, rates)
@settings(deadline=None)
def test_a_clearing_price_fits_between_floor_and_bid_in_either_currency(one: int, other: int, rate: float) -> None:
    """A price between a converted floor and a converted bid is, answered in their currency, still between the two."""
    floor, bid = sorted((one, other))
    known = Rates("USD", {"EUR": rate})
    low, high = known.inward_micros(floor, "EUR"), known.bid_micros(bid, "EUR")
    for price in {low, (low + high) // 2, high} if low <= high else ():
        assert floor <= known.outward_micros(price, "EUR") <= bid


def test_rates_are_taken_over_in_place() -> None:
    """Everybody who holds them has the new ones; a currency that is left out keeps its rate, so that an auction under
    way can be answered."""
    rates = Rates("USD", {"EUR": 1.0, "KRW": 0.001})
    rates.take_over(Rates("USD", {"EUR": 1.25}))
    assert (rates.inward_micros(1_000_000, "EUR"), rates.inward_micros(1_000_000, "KRW")) == (1_250_000, 1_000)
    with pytest.raises(ValueError, match="rates into EUR are none into USD"):
        rates.take_over(Rates("EUR", {}))
