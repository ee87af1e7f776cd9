"""CloudEvents 1.0 over Kafka: how an event travels, and how it is read back.

Both content modes are read, binary (`ce_*` headers beside a JSON body) and structured
(`application/cloudevents+json`, also recognised by its `specversion` where a record has no headers at all);
binary is written.

`decode` is total: it returns an event or raises `Reject`, in time and memory bounded by the limits below. NUL
and lone surrogates, which PostgreSQL and UTF-8 cannot hold, are removed from text and the rest is kept.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from shared.bus.port import Headers, Message
from shared.errors import Reject
from shared.events.base import Payload
from shared.events.registry import MODELS
from shared.events.structured import STRUCTURED, Attributes
from shared.events.text import CONTROL, scrub, why

MAX_BODY: Final = 1024 * 1024
"""Largest body in bytes. Kafka's own default limit for a record is the same; nothing that an order needs
comes near."""

MAX_SOURCE: Final = 512
MAX_EVENT_ID: Final = 256
MAX_EXTENSIONS: Final = 32
MAX_EXTENSION: Final = 4096
"""Longest `source` and `id`, number of extension attributes, and longest of each, in characters."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "headsup")

D_co = TypeVar("D_co", bound=Payload, covariant=True)
P = TypeVar("P", bound=Payload)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_EXTENSIONS: Final[Mapping[str, str]] = MappingProxyType({})
_ATTRIBUTES: Final = frozenset(
    {
        "specversion",
        "id",
        "source",
        "type",
        "time",
        "subject",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
    }
)
_HEADERS: Final = frozenset({"content-type", "Content-Type"} | {f"ce_{name}" for name in _ATTRIBUTES})
_EXTENSION_NAME: Final = re.compile(r"[a-z0-9_]{1,64}")
_VALIDATE: Final[dict[bytes, tuple[str, Callable[[bytes], Payload]]]] = {
    name.encode(): (name, model.__pydantic_validator__.validate_json) for name, model in MODELS.items()
}


def _no_extensions() -> Mapping[str, str]:
    return _NO_EXTENSIONS


class Stamp(NamedTuple):
    """Orders facts: of two values of one field the one with the greater stamp holds, whatever came first.

    `time_us` is microseconds since the epoch, UTC."""

    time_us: int
    source: str
    id: str


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
    extensions: Mapping[str, str] = _NO_EXTENSIONS,
) -> Event[P]:
    """An event of ours around this payload; its type is the payload's. `time` must be aware (`ValueError`
    else)."""
    if time.utcoffset() is None:
        raise ValueError("an event's time needs an offset")
    return Event(id, source, data.TYPE, time.astimezone(UTC), data, subject, extensions)


def decode(record: Received) -> Event[Payload]:
    """Read one record. Raises `Reject`, with the field at fault and a reason that repeats no value, for
    whatever is not a valid event of a known type within the limits."""
    body = record.value
    if body is None:
        raise Reject("The record is a tombstone: it has no body, and events are never deleted.")
    if len(body) > MAX_BODY:
        raise Reject(f"The body is larger than {MAX_BODY} bytes.")
    headers = dict(record.headers)
    content_type = headers.get("content-type") or headers.get("Content-Type")
    if content_type and _is_structured(content_type):
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
    known = _VALIDATE.get(kind)
    if known is None:
        raise Reject("No such event type.", "type")
    id = _identity(_header(headers, "id"), "id", MAX_EVENT_ID)
    source = _identity(_header(headers, "source"), "source", MAX_SOURCE)
    time = _time(_header(headers, "time"))
    subject = _header(headers, "subject")
    name, validate = known
    if b"\\u0000" in body or b"\\ud" in body or b"\\uD" in body or b"\x00" in body:
        body = scrub(body)
    try:
        data = validate(body)
    except ValidationError as error:
        raise why(error, body) from None
    extra = headers.keys() - _HEADERS
    extensions = (
        _extensions({k[3:]: _header(headers, k[3:]) for k in extra if k[:3] == "ce_"})
        if extra
        else _NO_EXTENSIONS
    )
    return Event(id, source, name, time, data, subject or None, extensions)


def decode_structured(body: bytes) -> Event[Payload]:
    """Read one CloudEvent in JSON, attributes and data in one object. Raises as `decode`."""
    if len(body) > MAX_BODY:
        raise Reject(f"The body is larger than {MAX_BODY} bytes.")
    if b"\\u0000" in body or b"\\ud" in body or b"\\uD" in body or b"\x00" in body:
        body = scrub(body)
    try:
        found: Attributes = STRUCTURED.validate_json(body)
    except ValidationError as error:
        raise why(error, body, structured=True) from None
    if found.datacontenttype is not None and _is_structured(found.datacontenttype.encode()):
        raise Reject("The data must be plain JSON.", "datacontenttype")
    extra = found.model_extra
    return Event(
        _identity(found.id, "id", MAX_EVENT_ID),
        _identity(found.source, "source", MAX_SOURCE),
        found.type,
        _time(found.time),
        found.data,
        found.subject or None,
        _extensions({k: v for k, v in extra.items() if k not in _ATTRIBUTES}) if extra else _NO_EXTENSIONS,
    )


def encode(event: Event[Payload]) -> tuple[bytes, Headers]:
    """Body and headers in binary mode. Raises `ValueError` where the event's time has no offset."""
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_time", _rfc3339(event.time).encode()),
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
        "time": _rfc3339(event.time),
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


@lru_cache(maxsize=256)
def _is_structured(content_type: bytes) -> bool:
    kind, *parameters = content_type.decode("latin-1").lower().split(";")
    kind = kind.strip()
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in {"utf-8", "utf8", "us-ascii"}:
            raise Reject("The body must be UTF-8.", "content-type")
    if kind == "application/cloudevents+json":
        return True
    if kind.startswith("application/cloudevents"):
        raise Reject("Of CloudEvents' formats only single events in JSON are read.", "content-type")
    if kind in {"application/json", "text/json"} or kind.endswith("+json"):
        return False
    raise Reject("The body must be JSON.", "content-type")


def _header(headers: Mapping[str, bytes], name: str) -> str:
    raw = headers.get(f"ce_{name}")
    if not raw:
        return ""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise Reject("The attribute is not UTF-8.", name) from None


def _identity(value: str, name: str, longest: int) -> str:
    if not value or value.isspace():
        raise Reject(f"The event has no {name}.", name)
    if len(value) > longest:
        raise Reject(f"The {name} is longer than {longest} characters.", name)
    if not value.isprintable() and CONTROL.search(value):
        raise Reject(f"The {name} holds control characters.", name)
    return value


def _time(value: str) -> datetime:
    if not value:
        raise Reject("The event has no time.", "time")
    try:
        time = datetime.fromisoformat(value.upper())
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Reject("The time is not RFC 3339.", "time") from None
    raise Reject("The time has no offset.", "time")


def _extensions(found: Mapping[str, Any]) -> Mapping[str, str]:
    if len(found) > MAX_EXTENSIONS:
        raise Reject(f"The event has more than {MAX_EXTENSIONS} extension attributes.")
    kept: dict[str, str] = {}
    for name, value in found.items():
        if not _EXTENSION_NAME.fullmatch(name) or value is None:
            continue
        text = value if isinstance(value, str) else to_json(value).decode()
        if len(text) > MAX_EXTENSION:
            raise Reject(f"An extension attribute is longer than {MAX_EXTENSION} characters.")
        kept[name] = text.replace("\x00", "")
    return MappingProxyType(kept) if kept else _NO_EXTENSIONS


def _rfc3339(time: datetime) -> str:
    if time.utcoffset() is None:
        raise ValueError("an event's time needs an offset")
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
