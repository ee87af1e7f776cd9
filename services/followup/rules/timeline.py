"""What a case's timeline shows of each event: when, what, and the data without addresses and texts."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from services.followup.rules.tasks import Task
from shared.events.envelope import Event

LEFT_OUT: Final = {
    *{"facts", "contacts", "texts", "media", "customer_id", "lookup"},
    *{"case_id", "incident_id", "order_id", "store_id", "scenario"},
}


class Moment(NamedTuple):
    """`id` is the same for the same event, so telling it twice shows it once."""

    case_id: str
    id: str
    at: datetime
    type: str
    data: dict[str, Any]


def of_event(case_id: str, event: Event[Any]) -> Moment:
    data = event.data.model_dump(mode="json", exclude=LEFT_OUT, exclude_none=True)
    at = next(
        (t for name in ("at", "received_at", "resolved_at") if (t := getattr(event.data, name, None))), event.time
    )
    return Moment(case_id, f"{event.source}\x1f{event.id}", at, event.type, data)


def of_tasks(case_id: str, raised: Iterable[Task], withdrawn: Iterable[str], now: datetime) -> list[Moment]:
    stamp = now.isoformat()
    moments = [
        Moment(
            case_id,
            f"task/{task.key}/{task.urgency}/{stamp}",
            now,
            "task.raised",
            {"kind": str(task.kind), "reason": task.reason, "urgency": task.urgency, "due_at": task.due_at.isoformat()},
        )
        for task in raised
    ]
    return moments + [
        Moment(case_id, f"task/{key}/gone/{stamp}", now, "task.withdrawn", {"kind": key.partition("/")[0]})
        for key in withdrawn
    ]


def of_person(case_id: str, deed: str, by: str, now: datetime, **data: Any) -> Moment:
    """What a person did over REST."""
    return Moment(case_id, f"person/{deed}/{by}/{now.isoformat()}", now, deed, {"by": by, **data})
