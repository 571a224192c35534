"""What the Google Ads API answers over REST: the shapes, and its errors.

int64 travels as a string, field names in lowerCamelCase. Sources (developers.google.com/google-ads/api):
rest/design/json-mappings, rest/common/search, rest/common/mutate, docs/best-practices/partial-failures,
docs/best-practices/error-types, reference/rpc/latest/GoogleAdsFailure, reference/rpc/latest/QuotaErrorDetails;
google.rpc.Status and google.rpc.RetryInfo.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from rtb.adapters.source_http import HOLD_OFF_S, retry_after_s
from rtb.ports.http import HttpResponse

_QUOTA = "quotaError"
_FAILURE = ".errors.GoogleAdsFailure"
_RETRY_INFO = "google.rpc.RetryInfo"


class Wire(Struct, frozen=True, rename="camel"):
    """Any of its messages."""


class Campaign(Wire, frozen=True):
    """campaign.*"""

    id: str


class Customer(Wire, frozen=True):
    """customer.*"""

    currency_code: str


class Metrics(Wire, frozen=True):
    """metrics.*: what was asked for is there, zeros too; a missing one is not a zero."""

    impressions: str | None = None
    clicks: str | None = None
    cost_micros: str | None = None
    conversions: float | None = None
    conversions_value: float | None = None


class Row(Wire, frozen=True):
    """A row of the report."""

    campaign: Campaign
    customer: Customer
    metrics: Metrics = Metrics()


class Page(Wire, frozen=True):
    """A page of rows; the last one has no token."""

    results: list[Row] = []
    next_page_token: str = ""


class PathElement(Wire, frozen=True):
    """A step to the field at fault, as in operations[3]."""

    field_name: str = ""
    index: int | None = None


class Location(Wire, frozen=True):
    """The field at fault."""

    field_path_elements: list[PathElement] = []


class QuotaDetails(Wire, frozen=True):
    """For how long a rate is used up, as in "30s"."""

    retry_delay: str = ""


class ErrorDetails(Wire, frozen=True):
    """More of an error."""

    quota_error_details: QuotaDetails | None = None


class AdsError(Wire, frozen=True):
    """One error: its code is the only field of `error_code`, by the kind of error."""

    error_code: dict[str, str] = {}
    message: str = ""
    location: Location | None = None
    details: ErrorDetails | None = None

    @property
    def operation(self) -> int | None:
        """The index of the operation at fault, None when no operation is."""
        for element in self.location.field_path_elements if self.location is not None else ():
            if element.field_name in ("operations", "mutate_operations"):
                return element.index
        return None

    @property
    def line(self) -> str:
        """The message and the code."""
        code = " ".join(f"{kind} {name}" for kind, name in self.error_code.items())
        return f"{self.message or 'no message'} ({code})" if code else self.message


class Detail(Struct, frozen=True, rename="camel"):
    """A detail of a status: a GoogleAdsFailure has `errors`, a RetryInfo `retry_delay`."""

    type: str = msgspec.field(default="", name="@type")
    errors: list[AdsError] = []
    retry_delay: str = ""


class Status(Wire, frozen=True):
    """google.rpc.Status; over HTTP `status` is the code's name."""

    code: int = 0
    message: str = ""
    status: str = ""
    details: list[Detail] = []

    @property
    def errors(self) -> Iterator[AdsError]:
        """Those of its GoogleAdsFailure."""
        for detail in self.details:
            if detail.type.endswith(_FAILURE):
                yield from detail.errors

    @property
    def line(self) -> str:
        """Its first error, else itself."""
        first = next(self.errors, None)
        return first.line if first is not None else f"{self.message or 'no message'} ({self.status or self.code})"

    @property
    def throttled_s(self) -> float:
        """For how many seconds to ask no more: the longest delay it names; 0 when it is not about the rate."""
        delays = [_seconds(detail.retry_delay) for detail in self.details if detail.type.endswith(_RETRY_INFO)]
        about_rate = self.code == 429 or self.status == "RESOURCE_EXHAUSTED"
        for error in self.errors:
            about_rate = about_rate or _QUOTA in error.error_code
            if error.details is not None and error.details.quota_error_details is not None:
                delays.append(_seconds(error.details.quota_error_details.retry_delay))
        return (max(delays, default=0.0) or HOLD_OFF_S) if about_rate else 0.0


class MutateResult(Wire, frozen=True):
    """What an operation changed; empty when it failed."""

    resource_name: str = ""


class Mutated(Wire, frozen=True):
    """The answer to a mutate with partialFailure: a result an operation, in order."""

    results: list[MutateResult] = []
    partial_failure_error: Status | None = None


class _Failure(Wire, frozen=True):
    error: Status


_failure = msgspec.json.Decoder(_Failure | list[_Failure])  # a list from streaming methods


def failure_of(response: HttpResponse) -> tuple[str, float]:
    """Why a request was refused, in one line, and for how many seconds to ask no more (0: go on)."""
    after_s = retry_after_s(response.headers) or 0.0
    try:
        failure = _failure.decode(response.body)
    except (msgspec.MsgspecError, RecursionError):
        failure = []
    if isinstance(failure, list):
        if not failure:
            return f"HTTP {response.status}", after_s or (HOLD_OFF_S if response.status == 429 else 0.0)
        failure = failure[0]
    return failure.error.line, max(after_s, failure.error.throttled_s)


def _seconds(duration: str) -> float:
    """Seconds of a google.protobuf.Duration in JSON, as in "1.5s"; 0 when it is none."""
    try:
        seconds = float(duration.removesuffix("s"))
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < 1e9 else 0.0
