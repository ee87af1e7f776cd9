"""The detector's REST: how events come in without Kafka, and the incidents that came of them."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel

from shared import paging
from shared.access import Caller
from shared.bus.port import Message
from shared.errors import Reject
from shared.events.base import parse_time
from shared.events.stores import Role
from shared.events.text import scrub
from shared.http import bounded_body
from shared.ingest import prepare
from shared.problems import Problem
from shared.process import Doors
from shared.seal import Sealer

MAX_REQUEST = 8 * 1024 * 1024
"""Bytes of one request; one event within it has the codec's own limit of 512 KiB."""
MAX_EVENTS = 1000

_KINDS = ("application/json", "application/cloudevents+json", "application/cloudevents-batch+json")


class Reading(Protocol):
    """What was told, to look at."""

    async def page(
        self,
        *,
        order_id: str | None,
        store_ids: Collection[str] | None,
        is_open: bool | None,
        after: paging.Cursor | None,
        limit: int,
    ) -> list[dict[str, Any]]: ...

    async def one(self, incident_id: str) -> dict[str, Any] | None: ...


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


def router(doors: Doors, sealer: Sealer, incidents: Reading) -> APIRouter:
    """The detector's routes."""
    producer = doors.producer
    routes = APIRouter(prefix="/v1", tags=["detector"])

    @routes.post(
        "/events",
        status_code=202,
        dependencies=[Depends(doors.access.needs(Role.INGEST))],
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

    reader = Depends(doors.access.needs(Role.READ))

    @routes.get("/incidents")
    async def listed(  # noqa: PLR0917 - a list's filters
        caller: Annotated[Caller, reader],
        order_id: str | None = None,
        store_id: str | None = None,
        state: Literal["open", "resolved"] | None = None,
        cursor: paging.CursorText = None,
        limit: paging.Limit = 50,
    ) -> paging.Page:
        """Incidents as they were last told, the newest detection first."""
        if store_id is not None:
            caller.must_see(store_id)
        rows = await incidents.page(
            order_id=order_id,
            store_ids=[store_id] if store_id is not None else caller.stores,
            is_open=None if state is None else state == "open",
            after=paging.read_cursor(cursor),
            limit=limit + 1,
        )
        return paging.page(rows, limit, lambda row: row, _place)

    @routes.get("/incidents/{incident_id}")
    async def one(caller: Annotated[Caller, reader], incident_id: str) -> dict[str, Any]:
        """One incident with its evidence: the ids of the events that show the cause."""
        found = await incidents.one(incident_id)
        if found is None or not caller.sees(found["store_id"]):
            raise Problem(404, "There is no such incident.")
        return found

    return routes


def _place(row: dict[str, Any]) -> paging.Cursor:
    return paging.Cursor(parse_time(row["detected_at"]), row["incident_id"])


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
