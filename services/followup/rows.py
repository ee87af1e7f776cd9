"""What the follow-up's tables hold of a case, its promises and its tasks: their columns, and one row of each."""

from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec

from services.followup.rules.announce import compensation, remedy_id
from services.followup.rules.case import state_of
from services.followup.rules.facts import Case
from services.followup.rules.tasks import Task

encode = msgspec.json.Encoder().encode

CASE: Final = {
    "case_id": "text",
    "remedy_id": "text",
    "order_id": "text",
    "store_id": "text",
    "scenario": "text",
    "state": "text",
    "cause": "text",
    "occurred_at": "timestamptz",
    "detected_at": "timestamptz",
    "contact_due_at": "timestamptz",
    "contacted_at": "timestamptz",
    "replies": "integer",
    "choice": "text",
    "compensation": "numeric",
    "currency": "text",
    "score": "integer",
    "closed_as": "text",
    "closed_at": "timestamptz",
    "facts": "bytea",
}
PROMISE: Final = {
    "promise_id": "text",
    "case_id": "text",
    "order_id": "text",
    "store_id": "text",
    "scenario": "text",
    "kind": "text",
    "text": "text",
    "state": "text",
    "made_at": "timestamptz",
    "due_at": "timestamptz",
    "settled_at": "timestamptz",
    "reason": "text",
}
TASK: Final = {
    "task_id": "text",
    "group_key": "text",
    "kind": "text",
    "store_id": "text",
    "scenario": "text",
    "cause": "text",
    "case_id": "text",
    "reason": "text",
    "urgency": "integer",
    "least": "integer",
    "created_at": "timestamptz",
    "due_at": "timestamptz",
}


def case_row(case: Case) -> dict[str, Any]:
    incident = case.incident
    return {
        "case_id": case.case_id,
        "remedy_id": remedy_id(case.case_id),
        "order_id": case.order_id,
        "store_id": case.store_id,
        "scenario": case.scenario,
        "state": state_of(case) if incident is not None and case.opened else None,
        "cause": incident.cause if incident else None,
        "occurred_at": incident.occurred_at if incident else None,
        "detected_at": incident.detected_at if incident else None,
        "contact_due_at": incident.contact_due_at if incident else None,
        "contacted_at": case.contacted_at,
        "replies": len(case.replies),
        "choice": case.choice.option.code if case.choice else None,
        "compensation": compensation(case),
        "currency": incident.currency if incident else None,
        "score": case.score,
        "closed_as": case.closed.closed_as if case.closed else None,
        "closed_at": case.closed.at if case.closed else None,
        "facts": encode(case),
    }


def promise_row(case: Case, identity: str) -> dict[str, Any]:
    entry = case.ledger[identity]
    return {
        "promise_id": identity,
        "case_id": case.case_id,
        "order_id": case.order_id,
        "store_id": case.store_id,
        "scenario": case.scenario,
        "kind": entry.kind,
        "text": entry.text,
        "state": entry.state,
        "made_at": entry.made_at,
        "due_at": entry.due_at,
        "settled_at": entry.settled_at,
        "reason": entry.reason,
    }


def task_row(case: Case, task: Task, now: datetime) -> dict[str, Any]:
    """A task's row. One that is about a single case names it; one of a wave does not."""
    alone = task.group.endswith(f"/{case.case_id}")
    return {
        "task_id": str(uuid4()),
        "group_key": task.group,
        "kind": task.kind,
        "store_id": case.store_id,
        "scenario": case.scenario,
        "cause": task.cause,
        "case_id": case.case_id if alone else None,
        "reason": task.reason,
        "urgency": task.urgency,
        "least": 0,
        "created_at": now,
        "due_at": task.due_at,
    }
