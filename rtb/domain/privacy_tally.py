"""How often a remote bidder was told all, told less, or not asked for the sake of the user, and why.

Whoever is asked is told all, or is told less for one reason; the reason says how much less. So the counters by reason
that a bidder has anyway are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from rtb.domain.privacy import Reason

_COARSE = frozenset({Reason.GDPR_GEO.value})
"""Why precise geography and the end of the address are left out, and nothing else."""
_REASONS = frozenset(reason.value for reason in Reason)


class Told(Struct, frozen=True, kw_only=True, gc=False):
    """What became of requests at the privacy gate: how many were sent whole, and the others by reason.

    Attributes:
        whole: sent as they were.
        coarse: without precise geography and the end of the address.
        anonymous: besides, without identifiers and what is known of the user.
        not_asked: not sent.
    """

    whole: int = 0
    coarse: dict[str, int] = {}
    anonymous: dict[str, int] = {}
    not_asked: dict[str, int] = {}

    def counts(self) -> Iterable[tuple[str, str, int]]:
        """(what became of them, reason, number), the reason "" for what was sent whole."""
        yield "whole", "", self.whole
        for treatment in ("coarse", "anonymous", "not_asked"):
            for reason, count in getattr(self, treatment).items():
                yield treatment, reason, count


def told(calls: int, stripped: Mapping[str, int], skipped: Mapping[str, int]) -> Told:
    """Of so many calls, those that were `stripped` and the requests that were `skipped`, by reason."""
    return Told(
        whole=calls - sum(stripped.values()),
        coarse={reason: count for reason, count in stripped.items() if reason in _COARSE},
        anonymous={reason: count for reason, count in stripped.items() if reason not in _COARSE},
        not_asked={reason: count for reason, count in skipped.items() if reason in _REASONS},
    )
