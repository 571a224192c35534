"""What every resource of the API has in common: reading requests, making answers, and errors as answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import msgspec
import structlog
from aiohttp import web

from dashboard.access import IDENTITY, refusal
from dashboard.openapi import Operation, Parameter
from rtb.domain.source_metrics import Days
from rtb.errors import BadRequest, InvalidCampaign, Malformed, NotFound, StoreError
from rtb.services.alerts import Conflict

MAX_DAYS = 400
ACTOR = 64
"""Characters of an actor in the history."""
SOMEBODY = "somebody"
"""Who acts where nobody logs in."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[Operation, Handler]
ID = Parameter("id", {"type": "string", "minLength": 1}, "Its id.", optional=False)
_DATE = {"type": "string", "format": "date"}
DAYS = (Parameter("since", _DATE, "First day (today)."), Parameter("until", _DATE, "Last day (today)."))

_log = structlog.get_logger(__name__)


def limit(default: int, most: int) -> Parameter:
    """The parameter of how many to list."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", schema, "How many at most.")


def get(path: str, summary: str, answer: Any, **options: Any) -> Operation:
    """An operation that reads."""
    return Operation(method="GET", path=path, summary=summary, answer=answer, **options)


def answer(value: Any, status: int = 200) -> web.Response:
    """The value as JSON, which nobody keeps."""
    body = msgspec.json.encode(value)
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The object that was sent. Raises BadRequest, or HTTPUnsupportedMediaType for what is not declared as JSON."""
    if request.content_type != "application/json":  # a form of another page can declare others, not this
        raise web.HTTPUnsupportedMediaType(text="send the body as application/json")
    try:
        value = msgspec.json.decode(await request.read())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"body: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("body: expected an object")
    return value


def id_of(request: web.Request) -> str:
    """The id in the path."""
    return request.match_info["id"]


def asker(request: web.Request) -> str:
    """The name of who asks."""
    identity = request.get(IDENTITY)
    return SOMEBODY if identity is None else identity.name


def actor(request: web.Request) -> str:
    """Who asks, as the history of changes has it."""
    identity = request.get(IDENTITY)
    return ("dashboard" if identity is None else f"dashboard:{identity.name}")[:ACTOR]


def number(request: web.Request, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most` in the query. Raises BadRequest."""
    given = request.query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and 1 <= int(given) <= most):
        raise BadRequest(f"{name}: expected a number from 1 to {most}")
    return int(given)


def days(request: web.Request, today: str) -> Days:
    """The days in the query, by default today. Raises BadRequest."""
    try:
        first = date.fromisoformat(request.query.get("since") or today)
        last = date.fromisoformat(request.query.get("until") or max(today, first.isoformat()))
    except ValueError:
        raise BadRequest("since, until: give dates as in 2026-11-22") from None
    if last < first:
        raise BadRequest("until: must not be before since")
    if (last - first).days >= MAX_DAYS:
        raise BadRequest(f"until: more than {MAX_DAYS} days after since")
    return Days(first, last)


def guarded(handler: Handler) -> Handler:
    """The handler, its errors as answers."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotFound as error:
            return refusal(404, _line(error))
        except Conflict as error:
            return refusal(409, _line(error))
        except (BadRequest, InvalidCampaign, Malformed) as error:
            return refusal(400, _line(error))
        except StoreError as error:
            return refusal(503, _line(error))
        except web.HTTPRequestEntityTooLarge as error:
            return refusal(413, f"body: longer than {error.body_length or 'allowed'}")
        except web.HTTPException as error:
            return refusal(error.status, _line(error.text or error.reason))
        except Exception as error:
            _log.exception("api_failed", path=request.path)
            return refusal(500, f"the daemon failed: {type(error).__name__}; see its log")

    return guarded


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What aiohttp itself refuses under /api, in the form of every other error."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith("/api/") or error.content_type == "application/json":
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return refusal(error.status, _line(error.reason).lower(), headers)


def _line(error: object) -> str:
    return " ".join(str(error).split())
