"""What an event's attributes may be: content type, id, source, time and extensions. All raise `Reject`."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import to_json

from shared.errors import Reject
from shared.events.base import parse_time
from shared.events.text import CONTROL, is_utf8

MAX_SOURCE: Final = 512
MAX_EVENT_ID: Final = 256
MAX_EXTENSIONS: Final = 32
MAX_EXTENSION: Final = 4096
"""Longest `source` and `id`, number of extension attributes, and longest of each, in characters."""

NO_EXTENSIONS: Final[Mapping[str, str]] = MappingProxyType({})

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
_EXTENSION_NAME: Final = re.compile(r"[a-z0-9_]{1,64}")


@lru_cache(maxsize=256)
def is_structured(content_type: bytes) -> bool:
    """Whether this content type announces the structured mode, not a plain JSON body. Anything else is
    refused."""
    if len(content_type) > 200:
        raise Reject("The content type is too long.", "content-type")
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


def text(raw: bytes | None, attribute: str) -> str:
    """A header's text, without NUL; empty where there is none."""
    try:
        value = (raw or b"").decode().replace("\x00", "")
    except UnicodeDecodeError:
        raise Reject("The attribute is not UTF-8.", attribute) from None
    if len(value) > MAX_EXTENSION:
        raise Reject(f"The attribute is longer than {MAX_EXTENSION} characters.", attribute)
    return value


def bad_attribute(headers: Mapping[str, bytes]) -> Reject:
    """Why the three attributes that every event needs could not be read."""
    for attribute in ("id", "source", "time"):
        raw = headers.get(f"ce_{attribute}")
        if not raw:
            return Reject(f"The event has no {attribute}.", attribute)
        if not is_utf8(raw):
            return Reject("The attribute is not UTF-8.", attribute)
    return Reject("The event's attributes cannot be read.")


def identity(value: str, name: str, longest: int) -> str:
    """An `id` or `source`: not blank, no longer than `longest` characters, no control characters."""
    if not value or value.isspace():
        raise Reject(f"The event has no {name}.", name)
    if len(value) > longest:
        raise Reject(f"The {name} is longer than {longest} characters.", name)
    if not value.isprintable() and CONTROL.search(value):
        raise Reject(f"The {name} holds control characters.", name)
    return value


def time(value: str) -> datetime:
    """RFC 3339 with an offset, in UTC."""
    if not value:
        raise Reject("The event has no time.", "time")
    try:
        return parse_time(value)
    except ValueError as error:
        raise Reject(f"{error}.", "time") from None


def extensions(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The attributes that CloudEvents itself does not define, as text. Names against its rules are left
    out."""
    kept: dict[str, str] = {}
    for name, value in found.items():
        if name in _ATTRIBUTES or value is None or not _EXTENSION_NAME.fullmatch(name):
            continue
        if len(kept) == MAX_EXTENSIONS:
            raise Reject(f"The event has more than {MAX_EXTENSIONS} extension attributes.")
        kept[name] = value if isinstance(value, str) else to_json(value).decode()
        if len(kept[name]) > MAX_EXTENSION:
            raise Reject(f"An extension attribute is longer than {MAX_EXTENSION} characters.")
    return MappingProxyType(kept) if kept else NO_EXTENSIONS
