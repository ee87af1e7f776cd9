"""What cannot be stored is taken out of text, and what is wrong is said without repeating it."""

import re
from typing import Final

from pydantic import ValidationError

from shared.errors import Reject

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_ESCAPE: Final = re.compile(
    rb"\\[^u]"  # any other escape, an escaped backslash above all: what follows it is no escape
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair: a character
    rb"|(?P<drop>\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2})",  # NUL, or a surrogate by itself
    re.DOTALL,
)


def scrub(body: bytes) -> bytes:
    """JSON without NUL and without lone surrogates, in strings and keys, written raw or as escapes;
    everything else is kept byte for byte. One pass; what is no JSON stays none, or becomes what it is without
    its NULs."""
    if b"\x00" in body:
        body = body.replace(b"\x00", b"")
    if b"\\u0000" not in body and b"\\ud" not in body and b"\\uD" not in body:
        return body
    return _ESCAPE.sub(lambda found: b"" if found["drop"] else found[0], body)


def why(error: ValidationError, body: bytes, *, structured: bool = False) -> Reject:
    """The first of what pydantic found wrong, as an instruction. Repeats no value: they may hold phones.

    In structured mode paths start with the event type and `data`; both are taken off, so that a field has the
    same path in either mode."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, message, path = first["type"], first["msg"], first["loc"]
    if kind == "json_invalid":
        return Reject(f"The body is not {'JSON' if is_utf8(body) else 'UTF-8'} ({message}).")
    if kind == "union_tag_not_found":
        return Reject("The event has no type.", "type")
    if kind == "union_tag_invalid":
        return Reject("No such event type.", "type")
    if kind == "string_pattern_mismatch":
        message = "The text has not the form that this field needs (see docs/schemas)"
    if structured:
        path = path[1:]
        if len(path) > 1 and path[0] == "data":
            path = path[1:]
    return Reject(f"{message.removeprefix('Value error, ')}.", ".".join(map(str, path)))


def is_utf8(body: bytes) -> bool:
    """Whether these bytes are text at all."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
