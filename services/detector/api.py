"""The detector's REST: how events come in without Kafka."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel

from shared.bus.port import Message
from shared.errors import Reject
from shared.events.stores import Role
from shared.events.text import scrub
from shared.http import bounded_body
from shared.ingest import prepare
from shared.problems import Problem
from shared.process import Doors, Parts

MAX_REQUEST = 8 * 1024 * 1024
"""Bytes of one request; one event within it has the codec's own limit of 512 KiB."""
MAX_EVENTS = 1000

_KINDS = ("application/json", "application/cloudevents+json", "application/cloudevents-batch+json")


class _Envelope(msgspec.Struct):
    """What makes a JSON object a CloudEvent at all."""

    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    type: Annotated[str, msgspec.Meta(min_length=1)]


class Result(BaseModel):
    """What became of one event. `field` is the dotted path of the member at fault, empty for the whole event."""

    id: str
    source: str
    status: Literal["accepted", "rejected"]
    reason: str | None = None
    field: str | None = None


class Answer(BaseModel):
    accepted: int
    rejected: int
    events: list[Result]


def router(doors: Doors, parts: Parts) -> APIRouter:
    """The detector's routes."""
    producer, sealer = doors.producer, parts.sealer
    routes = APIRouter(prefix="/v1", tags=["detector"], dependencies=[Depends(doors.access.needs(Role.INGEST))])

    @routes.post(
        "/events",
        status_code=202,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"required": True, "content": {kind: {} for kind in _KINDS}}},
    )
    async def events(request: Request, idempotency_key: Annotated[str | None, Header(max_length=256)] = None) -> Answer:
        """Take one CloudEvent or an array of up to 1,000, in structured JSON.

        `accepted` means durable and on its way to be applied; a `rejected` event says why and can never be applied as
        it is, its neighbours are not affected. Phones are sealed before anything is stored. `id` with `source` makes a
        repeat harmless, so sending the same request again is always safe and gets the same answer, with or without an
        `Idempotency-Key`."""
        bodies = _split(request.headers.get("content-type", ""), await bounded_body(request, MAX_REQUEST))
        envelopes = [_envelope(index, body) for index, body in enumerate(bodies)]
        messages: list[Message] = []
        results = []
        for envelope, body in zip(envelopes, bodies, strict=True):
            try:
                messages.append(prepare(sealer, body))
            except Reject as error:
                told = {"status": "rejected", "reason": error.reason, "field": error.field}
            else:
                told = {"status": "accepted"}
            results.append(Result.model_validate({"id": envelope.id, "source": envelope.source, **told}))
        await producer.send(messages)
        return Answer(accepted=len(messages), rejected=len(results) - len(messages), events=results)

    return routes


def _split(content_type: str, body: bytes) -> Sequence[bytes]:
    """The events of one request, each as its own JSON text."""
    if content_type.partition(";")[0].strip().lower() not in _KINDS:
        raise Problem(415, f"Send one of: {', '.join(_KINDS)}.")
    body = scrub(body).strip()
    if not body.startswith(b"["):
        return [body]
    try:
        found = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "The body is not JSON, or nested too deeply.") from None
    if not found:
        raise Problem(400, "The batch is empty.")
    if len(found) > MAX_EVENTS:
        raise Problem(400, f"The batch has {len(found)} events, more than {MAX_EVENTS}: send it in parts.")
    return [bytes(raw) for raw in found]


def _envelope(index: int, body: bytes) -> _Envelope:
    try:
        return msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # msgspec's text names the member and the kind of value, never the value.
        raise _not_an_event(index, f"it is no CloudEvent: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_an_event(index, "it is not JSON") from None


def _not_an_event(index: int, why: str) -> Problem:
    errors: list[dict[str, Any]] = [{"index": index, "reason": why}]
    return Problem(400, f"Nothing was accepted. Event {index}: {why}.", errors=errors)
