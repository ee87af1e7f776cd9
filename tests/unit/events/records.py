"""Records as they come from the bus."""

import json
from dataclasses import dataclass
from typing import Any

Header = tuple[str, bytes]


@dataclass(frozen=True)
class Raw:
    """A record of the bus, as far as decoding looks at it."""

    value: bytes | None
    headers: tuple[Header, ...] = ()
    key: bytes | None = None


ATTRIBUTES: dict[str, Any] = {
    "specversion": "1.0",
    "id": "evt-1",
    "source": "/shop/orders",
    "type": "order.paid.v1",
    "time": "2026-11-11T00:03:21+08:00",
}


def body_of(data: Any) -> bytes:
    return data if isinstance(data, bytes) else json.dumps(data).encode()


def binary(event_type: str, data: Any, **attributes: str | None) -> Raw:
    """A record in binary mode; an attribute that is None is left out."""
    given = ATTRIBUTES | {"type": event_type} | attributes
    headers = [(f"ce_{name}", value.encode()) for name, value in given.items() if value is not None]
    return Raw(body_of(data), (("content-type", b"application/json"), *headers))


def structured(event_type: str, data: Any, **attributes: Any) -> Raw:
    """A record in structured mode; an attribute that is None is left out."""
    given = ATTRIBUTES | {"type": event_type} | attributes
    kept = {name: value for name, value in given.items() if value is not None}
    text = json.dumps(kept)[:-1].encode() + b', "data": ' + body_of(data) + b"}"
    return Raw(text, (("content-type", b"application/cloudevents+json; charset=UTF-8"),))
