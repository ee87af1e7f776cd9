"""Lists over REST: `{"items": […], "next_cursor": …}`, newest first, by a cursor that says where the next page begins.

A cursor is opaque to callers: the sort key and id of the last item, as base64. It stays good while rows come and go.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from fastapi import Query
from pydantic import BaseModel

from shared.events.base import format_time, parse_time
from shared.problems import Problem

MOST: Final = 500

Limit = Annotated[int, Query(ge=1, le=MOST, description="Items on a page.")]
CursorText = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]

T = TypeVar("T")


class Cursor(NamedTuple):
    """Where a page ended: items are listed by (at, id), newest first."""

    at: datetime
    id: str


class Page(BaseModel):
    items: list[dict[str, Any]]
    next_cursor: str | None = None


def read_cursor(text: str | None) -> Cursor | None:
    """Raises `Problem` 400 for what is no cursor of ours."""
    if text is None:
        return None
    try:
        at, _, identity = base64.urlsafe_b64decode(text.encode()).decode().partition("\x1f")
        return Cursor(parse_time(at), identity)
    except (ValueError, binascii.Error):
        raise Problem(400, "This is no cursor of ours: leave it out to begin at the first page.") from None


def page(rows: Sequence[T], limit: int, item: Callable[[T], dict[str, Any]], place: Callable[[T], Cursor]) -> Page:
    """A page of `limit` items; `rows` were asked for with a limit one higher, which tells whether there are more."""
    shown = rows[:limit]
    more = len(rows) > limit and bool(shown)
    return Page(items=[item(row) for row in shown], next_cursor=_write(place(shown[-1])) if more else None)


def _write(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(f"{format_time(cursor.at)}\x1f{cursor.id}".encode()).decode()
