"""CloudEvents 1.0 over Kafka: how an event travels, and how it is read back.

Both content modes are read, binary (`ce_*` headers beside a JSON body) and structured
(`application/cloudevents+json`, also recognised by its `specversion` where a record has no headers at all);
binary is written.

`decode` is total: it returns an event or raises `Reject`, in time and memory bounded by the limits on bodies, of
`attributes` and of the models. NUL and lone surrogates, which PostgreSQL and UTF-8 cannot hold, are
removed from text and the rest is kept.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from shared.bus.port import MAX_MESSAGE_BYTES, Headers, Message
from shared.errors import Reject
from shared.events import attributes
from shared.events.base import Payload, format_time, to_utc
from shared.events.registry import MODELS
from shared.events.structured import STRUCTURED, Attributes
from shared.events.text import scrub, why
from shared.events.topics import ROLES, SERVICES

MAX_BODY: Final = 512 * 1024
"""Largest body in bytes of what others write. Well below `MAX_MESSAGE_BYTES`, so that whatever is accepted can be told
on: an incident repeats its order and adds to it. Nothing that an order needs comes near."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "headsup")

D_co = TypeVar("D_co", bound=Payload, covariant=True)
P = TypeVar("P", bound=Payload)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OURS: Final = {topic for topic, role in ROLES.items() if set(role.written_by) <= {*SERVICES}}
_KNOWN: Final[dict[bytes, tuple[str, int, Callable[[bytes], Payload]]]] = {
    name.encode(): (
        name,
        MAX_MESSAGE_BYTES if model.TOPIC in _OURS else MAX_BODY,
        model.__pydantic_validator__.validate_json,
    )
    for name, model in MODELS.items()
}
"""By type: its name, the largest body, how the body becomes a payload."""


def _no_extensions() -> Mapping[str, str]:
    return attributes.NO_EXTENSIONS


class Stamp(NamedTuple):
    """Orders facts: of two values of one field the one with the greater stamp holds, whatever came first.

    `time_us` is microseconds since the epoch, UTC."""

    time_us: int
    source: str
    id: str

    @property
    def at(self) -> datetime:
        """When it happened (aware, UTC)."""
        return instant(self.time_us)


class Received(Protocol):
    """What `decode` looks at of a record of the bus."""

    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Event(Generic[D_co]):
    """Something that happened, at `time` (aware; UTC once decoded). `id` with `source` identifies it: the
    same pair seen again changes nothing. `extensions` are further CloudEvents attributes by their lower-case
    names (`traceparent`)."""

    id: str
    source: str
    type: str
    time: datetime
    data: D_co
    subject: str | None = None
    extensions: Mapping[str, str] = field(default_factory=_no_extensions, hash=False)

    @property
    def stamp(self) -> Stamp:
        return Stamp((self.time - _EPOCH) // _MICROSECOND, self.source, self.id)


def instant(time_us: int) -> datetime:
    """Microseconds since the epoch as an aware time in UTC: what a stamp's `time_us` stands for."""
    return _EPOCH + time_us * _MICROSECOND


def event_id(*parts: str) -> str:
    """The id of what we derive: the same parts give the same id, so that doing the work twice emits the same
    event."""
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))


def event(
    data: P,
    *,
    id: str,
    source: str,
    time: datetime,
    subject: str | None = None,
    extensions: Mapping[str, str] = attributes.NO_EXTENSIONS,
) -> Event[P]:
    """An event of ours around this payload; its type is the payload's. `time` must be aware (`ValueError`
    else)."""
    return Event(id, source, data.TYPE, to_utc(time), data, subject, extensions)


def decode(record: Received) -> Event[Payload]:
    """Read one record. Raises `Reject`, with the field at fault and a reason that repeats no value, for
    whatever is not a valid event of a known type within the limits."""
    body = record.value
    if body is None:
        raise Reject("The record is a tombstone: it has no body, and events are never deleted.")
    headers = dict(record.headers)
    content_type = headers.get("content-type") or headers.get("Content-Type")
    if content_type and attributes.is_structured(content_type):
        return decode_structured(body)
    kind = headers.get("ce_type")
    if not kind:
        if any(name.startswith("ce_") for name in headers):
            raise Reject("The event has no type.", "type")
        if b'"specversion"' in body:
            return decode_structured(body)
        raise Reject("The record is no CloudEvent: it has neither ce_ headers nor a specversion in its body.")
    if headers.get("ce_specversion") != b"1.0":
        raise Reject("The specversion must be 1.0.", "specversion")
    known = _KNOWN.get(kind)
    if known is None:
        raise Reject("No such event type.", "type")
    name, most, validate = known
    if len(body) > most:
        raise Reject(f"The body is larger than {most} bytes.")
    try:
        id = attributes.identity(headers["ce_id"].decode(), "id", attributes.MAX_EVENT_ID)
        source = attributes.identity(headers["ce_source"].decode(), "source", attributes.MAX_SOURCE)
        time = attributes.time(headers["ce_time"].decode())
    except (KeyError, AttributeError, UnicodeDecodeError):
        raise attributes.bad_attribute(headers) from None
    if b"\\" in body or b"\x00" in body:
        body = scrub(body)
    try:
        data = validate(body)
    except ValidationError as error:
        raise why(error, body) from None
    if len(headers) == (6 if content_type else 5):
        return Event(id, source, name, time, data, None, attributes.NO_EXTENSIONS)
    others = {header[3:]: attributes.text(raw, header[3:]) for header, raw in headers.items() if header[:3] == "ce_"}
    return Event(id, source, name, time, data, others.get("subject") or None, attributes.extensions(others))


def decode_structured(body: bytes) -> Event[Payload]:
    """Read one CloudEvent in JSON, attributes and data in one object. Raises as `decode`."""
    if len(body) > MAX_BODY:
        raise Reject(f"The body is larger than {MAX_BODY} bytes.")
    if b"\\" in body or b"\x00" in body:
        body = scrub(body)
    try:
        found: Attributes = STRUCTURED.validate_json(body)
    except ValidationError as error:
        raise why(error, body, structured=True) from None
    if found.datacontenttype is not None and attributes.is_structured(found.datacontenttype.encode()):
        raise Reject("The data must be plain JSON.", "datacontenttype")
    extra = found.model_extra
    return Event(
        attributes.identity(found.id, "id", attributes.MAX_EVENT_ID),
        attributes.identity(found.source, "source", attributes.MAX_SOURCE),
        found.type,
        attributes.time(found.time),
        found.data,
        attributes.text(found.subject.encode(), "subject") or None if found.subject else None,
        attributes.extensions(extra) if extra else attributes.NO_EXTENSIONS,
    )


def encode(event: Event[Payload]) -> tuple[bytes, Headers]:
    """Body and headers in binary mode. Raises `ValueError` where the event's time has no offset."""
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_time", format_time(event.time).encode()),
    ]
    if event.subject is not None:
        headers.append(("ce_subject", event.subject.encode()))
    headers += ((f"ce_{name}", value.encode()) for name, value in event.extensions.items())
    data = event.data
    return data.__pydantic_serializer__.to_json(data, exclude_none=True), tuple(headers)


def encode_structured(event: Event[Payload]) -> bytes:
    """The event as one JSON object (`application/cloudevents+json`). Raises as `encode`."""
    document: dict[str, Any] = {
        **event.extensions,
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": format_time(event.time),
        "datacontenttype": "application/json",
    }
    if event.subject is not None:
        document["subject"] = event.subject
    document["data"] = event.data.model_dump(mode="json", exclude_none=True)
    return to_json(document)


def to_message(event: Event[Payload]) -> Message:
    """The event as a record for its topic, under its key. Raises `ValueError` where no field of the key is
    set or the time has no offset."""
    body, headers = encode(event)
    return Message(event.data.TOPIC, event.data.key.encode(), body, headers)
