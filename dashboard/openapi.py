"""The OpenAPI 3.1 document, made of the same table and types that the server answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import msgspec
from msgspec import Struct

from dashboard.answers import Error

REFUSALS: Mapping[int, str] = {
    400: "The request is wrong; the line names the field.",
    401: "There is no token or session, or it is none of ours.",
    403: "The role does not allow it, or a page of another origin asks.",
    404: "There is none of this id.",
    409: "It does not fit what there is, or somebody else was quicker.",
    413: "The body is too long.",
    415: "The body is not declared as application/json.",
    421: "The server does not go by this host name.",
    429: "Too many wrong tokens came from this address.",
    503: "The database is away; try again.",
}
ALWAYS = (401, 403, 421, 429)
_TEMPLATE = "#/components/schemas/{name}"


class Parameter(Struct, frozen=True):
    """A parameter of a path or, `optional`, of a query."""

    name: str
    schema: Mapping[str, Any]
    description: str
    optional: bool = True


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `body` is the type of what is sent, `partial` whether any of its fields may be missing;
    `answer` None means that nothing is answered. `refusals` are statuses besides those that are always possible."""

    method: str
    path: str
    summary: str
    answer: Any = None
    status: int = 200
    body: Any = None
    partial: bool = False
    parameters: Sequence[Parameter] = ()
    refusals: Sequence[int] = ()


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document as plain values."""
    types = [t for op in operations for t in (op.answer, op.body) if t is not None] + [Error]
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    by_type = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        if op.partial:
            components[f"{op.body.__name__}Change"] = _partial(components[op.body.__name__])
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rtb dashboard",
            "version": "1",
            "description": "What the exchange does, and what an operator may change. Every error is "
            '`{"error": "one line"}`. Reading needs the role viewer, everything else operator.',
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "rtb_session"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _operation(op: Operation, schemas: Mapping[int, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": op.summary}
    if op.answer is not None:
        answer["content"] = {"application/json": {"schema": schemas[id(op.answer)]}}
    refusals = {*ALWAYS, *op.refusals, *((400, 413, 415) if op.body is not None else ())}
    found: dict[str, Any] = {
        "summary": op.summary,
        "operationId": "_".join([op.method.lower(), *op.path.replace("{", "").replace("}", "").split("/")[2:]]),
        "responses": {str(op.status): answer, **{str(status): _refusal(status) for status in sorted(refusals)}},
    }
    if op.parameters:
        found["parameters"] = [
            {
                "name": parameter.name,
                "in": "query" if parameter.optional else "path",
                "required": not parameter.optional,
                "schema": parameter.schema,
                "description": parameter.description,
            }
            for parameter in op.parameters
        ]
    if op.body is not None:
        ref = {"$ref": _TEMPLATE.format(name=f"{op.body.__name__}Change")} if op.partial else schemas[id(op.body)]
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref}}}
    return found


def _partial(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with any of its fields missing."""
    partial = deepcopy(dict(schema))
    partial.pop("required", None)
    for field in partial["properties"].values():
        if isinstance(field, dict):
            field.pop("default", None)
    return {**partial, "title": f"{schema['title']}Change", "minProperties": 1}


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": _TEMPLATE.format(name="Error")}
    return {"description": REFUSALS[status], "content": {"application/json": {"schema": schema}}}
