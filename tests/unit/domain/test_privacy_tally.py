"""How often a bidder was told less, from its counters."""

from __future__ import annotations

import pytest

from rtb.domain.bidder_policy import Skip
from rtb.domain.privacy import PrivacyPolicy, Reason, Signals, Treatment
from rtb.domain.privacy_tally import Told, told


def test_what_was_not_stripped_was_whole() -> None:
    """Of ten calls two were without precise geography and three anonymous; what was not asked was no call."""
    stripped = {Reason.GDPR_GEO.value: 2, Reason.COPPA.value: 1, Reason.GDPR_PURPOSE.value: 2}
    skipped = {Reason.US.value: 4, Skip.QPS.value: 9}
    assert told(10, stripped, skipped) == Told(
        whole=5,
        coarse={Reason.GDPR_GEO: 2},
        anonymous={Reason.COPPA: 1, Reason.GDPR_PURPOSE: 2},
        not_asked={Reason.US: 4},
    )


def test_they_can_be_counted_one_by_one() -> None:
    """With "" for the reason of what was whole."""
    found = told(3, {Reason.GDPR_GEO.value: 1}, {Reason.LMT.value: 5})
    assert list(found.counts()) == [("whole", "", 2), ("coarse", Reason.GDPR_GEO, 1), ("not_asked", Reason.LMT, 5)]


@pytest.mark.parametrize(
    "signals",
    [Signals(coppa=True), Signals(lmt=True), Signals(us=True), Signals(gdpr=True)],
    ids=["coppa", "lmt", "us", "gdpr"],
)
def test_the_reason_says_how_much_less(signals: Signals) -> None:
    """As the gate treats the request."""
    treatment, reason = signals.verdict(PrivacyPolicy())
    assert (treatment, reason is None) == (Treatment.ANONYMOUS, False)
    assert told(1, {str(reason): 1}, {}).anonymous == {reason: 1}
