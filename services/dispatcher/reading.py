"""What the REST reads, and how a notice looks there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from services.dispatcher.rules.state import Notice
from shared.events.base import format_time
from shared.paging import Cursor


@dataclass(frozen=True, slots=True)
class Listed:
    notice: Notice
    came_at: datetime

    @property
    def place(self) -> Cursor:
        return Cursor(self.came_at, self.notice.data.notice_id)


class Reading(Protocol):
    """Newest first; each list takes one row more than a page, which tells whether there is another."""

    async def notices(
        self,
        connection: AsyncConnection,
        filters: Mapping[str, str | None],
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Listed]: ...

    async def notice(self, connection: AsyncConnection, notice_id: str) -> Listed | None: ...

    async def opt_outs(
        self,
        connection: AsyncConnection,
        store_id: str | None,
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]: ...

    async def waves(
        self,
        connection: AsyncConnection,
        store_id: str | None,
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]: ...

    async def take_back(self, connection: AsyncConnection, store_id: str, lookup: str) -> bool:
        """Forget an opt-out; False where there was none."""
        ...

    async def sandbox_messages(
        self,
        connection: AsyncConnection,
        only: Mapping[str, str | None],
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]: ...

    async def behave(self, connection: AsyncConnection, kind: str, seconds: float, count: int) -> None: ...


def brief(listed: Listed) -> dict[str, Any]:
    """A notice in a list."""
    notice, data = listed.notice, listed.notice.data
    return {
        "notice_id": data.notice_id,
        "order_id": data.order_id,
        "store_id": data.store_id,
        "incident_id": data.incident_id,
        "revision": data.revision,
        "scenario": str(data.scenario),
        "purpose": str(data.purpose),
        "state": str(notice.state),
        "reason": str(notice.reason) if notice.reason else None,
        "detail": notice.detail,
        "releasable": notice.releasable,
        "options": [
            {"number": o.number, "code": str(o.code), "label": o.label, "promise": o.promise} for o in data.options
        ],
        "texts": data.texts.model_dump(exclude_none=True),
        "media": list(data.media),
        "came_at": format_time(listed.came_at),
        "contact_due_at": _time(data.contact_due_at),
        "sent_at": _time(notice.sent_at),
        "attempts": len(notice.progress.tries),
    }


def whole(listed: Listed) -> dict[str, Any]:
    """A notice by itself, with every attempt and where each step of its plan stands."""
    progress = listed.notice.progress
    return {
        **brief(listed),
        "released_by": progress.released_by,
        "steps": [
            {
                "step": index,
                "state": str(step.state),
                "channel": str(step.kind) if step.kind else None,
                "provider": step.provider or None,
                "reason": str(step.reason) if step.reason else None,
                "detail": step.detail,
                "retry_at": _time(step.retry_at),
            }
            for index, step in sorted(progress.steps.items())
        ],
        "attempts": [
            {
                "at": format_time(one.at),
                "step": one.step,
                "attempt": one.attempt,
                "channel": str(one.kind),
                "provider": one.provider,
                "outcome": one.outcome,
                "detail": one.detail,
            }
            for one in progress.tries
        ],
    }


def wave(row: Mapping[str, Any]) -> dict[str, Any]:
    """A wave in a list. `state`: paused until a person has looked, then released or dropped."""
    decided = "released" if row["sends"] else "dropped"
    return {
        "wave_id": row["wave_id"],
        "store_id": row["store_id"],
        "scenario": row["scenario"],
        "state": "paused" if row["released_at"] is None else decided,
        "detail": row["words"],
        "held": row["held"],
        "started_at": format_time(row["started_at"]),
        "released_at": _time(row["released_at"]),
    }


def _time(value: datetime | None) -> str | None:
    return None if value is None else format_time(value)
