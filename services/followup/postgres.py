"""The follow-up's `Cases` in SQL: one statement a table and batch, keys always locked in sorted order."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec
from sqlalchemy import text

from services.followup.rules.announce import compensation, remedy_id
from services.followup.rules.case import state_of
from services.followup.rules.facts import Case, Order
from services.followup.rules.tasks import Task
from services.followup.rules.timeline import Moment
from shared.store.unit import Raced, UnitOfWork

_encode = msgspec.json.Encoder().encode
_decode_case = msgspec.json.Decoder(Case).decode
_decode_order = msgspec.json.Decoder(Order).decode

_CASE: Final = {
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
_PROMISE: Final = {
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
_TASK: Final = {
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


def _rows(columns: Mapping[str, str]) -> str:
    """A table of bound arrays, one a column."""
    return "SELECT * FROM unnest(" + ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items()) + ")"


def _arrays(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in columns}


def _set(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = u.{name}" for name in columns)


class PostgresCases:
    """Cases as JSON in a bytea column beside what lists need; timelines, promises and tasks as rows."""

    async def lock_orders(self, unit: UnitOfWork, order_ids: Sequence[str]) -> dict[str, Order]:
        rows = await unit.connection.execute(
            text(
                "INSERT INTO followup.orders AS o (order_id) SELECT unnest(CAST(:ids AS text[]))"
                " ON CONFLICT (order_id) DO UPDATE SET order_id = o.order_id RETURNING order_id, facts"
            ),
            {"ids": list(order_ids)},
        )
        return {order_id: _decode_order(facts) for order_id, facts in rows}

    async def orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> dict[str, Order]:
        rows = await unit.connection.execute(
            text("SELECT order_id, facts FROM followup.orders WHERE order_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(order_ids)},
        )
        return {order_id: _decode_order(facts) for order_id, facts in rows}

    async def save_orders(self, unit: UnitOfWork, orders: Mapping[str, Order]) -> None:
        await unit.connection.execute(
            text(
                "UPDATE followup.orders AS o SET facts = u.facts"
                " FROM unnest(CAST(:ids AS text[]), CAST(:facts AS bytea[])) AS u (id, facts) WHERE o.order_id = u.id"
            ),
            {"ids": list(orders), "facts": [_encode(o) for o in orders.values()]},
        )

    async def of_orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> list[tuple[str, str]]:
        rows = await unit.connection.execute(
            text(
                "SELECT order_id, case_id FROM followup.cases WHERE order_id = ANY(CAST(:ids AS text[]))"
                " ORDER BY detected_at DESC NULLS LAST, case_id"
            ),
            {"ids": list(order_ids)},
        )
        return [(row.order_id, row.case_id) for row in rows]

    async def of_remedies(self, unit: UnitOfWork, remedy_ids: Collection[str]) -> dict[str, str]:
        rows = await unit.connection.execute(
            text("SELECT remedy_id, case_id FROM followup.cases WHERE remedy_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(remedy_ids)},
        )
        return {row.remedy_id: row.case_id for row in rows}

    async def load(self, unit: UnitOfWork, case_ids: Sequence[str], wait: bool) -> dict[str, Case]:
        if unit.careful:
            await unit.connection.execute(
                text(
                    "INSERT INTO followup.cases (case_id, remedy_id)"
                    " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:remedies AS text[])) ON CONFLICT DO NOTHING"
                ),
                {"ids": list(case_ids), "remedies": [remedy_id(c) for c in case_ids]},
            )
        rows = await unit.connection.execute(
            text(
                "SELECT case_id, facts FROM followup.cases WHERE case_id = ANY(CAST(:ids AS text[]))"
                f" ORDER BY case_id FOR UPDATE {'' if wait else 'SKIP LOCKED'}"
            ),
            {"ids": list(case_ids)},
        )
        found = {}
        for case_id, facts in rows:
            case = found[case_id] = _decode_case(facts)
            case.case_id = case_id
        return found

    async def save(self, unit: UnitOfWork, cases: Mapping[str, Case], known: Collection[str]) -> None:
        new = [_case_row(case) for case_id, case in cases.items() if case_id not in known]
        if new:
            done = await unit.connection.execute(
                text(f"INSERT INTO followup.cases ({', '.join(_CASE)}) {_rows(_CASE)} ON CONFLICT DO NOTHING"),
                _arrays(_CASE, new),
            )
            if done.rowcount < len(new):
                raise Raced("two partitions met on a new case")
        old = [_case_row(case) for case_id, case in cases.items() if case_id in known]
        if old:
            await unit.connection.execute(
                text(
                    f"UPDATE followup.cases AS c SET {_set(_CASE)}"
                    f" FROM ({_rows(_CASE)}) AS u ({', '.join(_CASE)}) WHERE c.case_id = u.case_id"
                ),
                _arrays(_CASE, old),
            )

    async def tell(self, unit: UnitOfWork, moments: Sequence[Moment]) -> None:
        await unit.connection.execute(
            text(
                "INSERT INTO followup.timeline (case_id, id, at, type, data) SELECT a, b, c, d, CAST(e AS jsonb)"
                " FROM unnest(CAST(:cases AS text[]), CAST(:ids AS text[]), CAST(:ats AS timestamptz[]),"
                " CAST(:types AS text[]), CAST(:data AS text[])) AS u (a, b, c, d, e) ON CONFLICT DO NOTHING"
            ),
            {
                "cases": [m.case_id for m in moments],
                "ids": [m.id for m in moments],
                "ats": [m.at for m in moments],
                "types": [m.type for m in moments],
                "data": [json.dumps(m.data, ensure_ascii=False) for m in moments],
            },
        )

    async def save_promises(self, unit: UnitOfWork, changed: Sequence[tuple[Case, str]]) -> None:
        rows = [_promise_row(case, identity) for case, identity in changed]
        updated = ("made_at", "state", "settled_at", "reason")
        await unit.connection.execute(
            text(
                f"INSERT INTO followup.promises ({', '.join(_PROMISE)}) {_rows(_PROMISE)} ON CONFLICT (promise_id)"
                f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in updated)}"
            ),
            _arrays(_PROMISE, rows),
        )

    async def raise_tasks(self, unit: UnitOfWork, raised: Sequence[tuple[Case, Task]]) -> None:
        rows: dict[str, dict[str, Any]] = {}
        for case, task in raised:
            row = _task_row(case, task, unit.now)
            before = rows.setdefault(task.group, row)
            before["urgency"] = max(before["urgency"], row["urgency"])
            before["due_at"] = min(before["due_at"], row["due_at"])
        ids = await self._upsert(unit, [rows[group] for group in sorted(rows)])
        await unit.connection.execute(
            text(
                "INSERT INTO followup.task_members (task_id, member, case_id, order_id) SELECT * FROM unnest("
                " CAST(:tasks AS text[]), CAST(:members AS text[]), CAST(:cases AS text[]), CAST(:orders AS text[]))"
                " ON CONFLICT (task_id, member) DO UPDATE SET open = true"
            ),
            {
                "tasks": [ids[task.group] for _, task in raised],
                "members": [f"{case.case_id}/{task.key}" for case, task in raised],
                "cases": [case.case_id for case, _ in raised],
                "orders": [case.order_id for case, _ in raised],
            },
        )

    async def raise_once(
        self, unit: UnitOfWork, member: str, task: Task, *, store_id: str | None, scenario: str | None, least: int
    ) -> None:
        case = Case(store_id=store_id)
        row = {**_task_row(case, task, unit.now), "case_id": None, "scenario": scenario, "least": least}
        seen = await unit.connection.scalar(
            text("SELECT 1 FROM followup.task_members WHERE member = :member"), {"member": member}
        )
        if seen:
            return
        [task_id] = (await self._upsert(unit, [row])).values()
        await unit.connection.execute(
            text("INSERT INTO followup.task_members (task_id, member) VALUES (:task, :member) ON CONFLICT DO NOTHING"),
            {"task": task_id, "member": member},
        )

    async def _upsert(self, unit: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The open task of each group, made where there is none."""
        found = await unit.connection.execute(
            text(
                f"INSERT INTO followup.tasks AS t ({', '.join(_TASK)}) {_rows(_TASK)}"
                " ON CONFLICT (group_key) WHERE state <> 'done' DO UPDATE SET"
                " urgency = greatest(t.urgency, excluded.urgency), due_at = least(t.due_at, excluded.due_at),"
                " least = greatest(t.least, excluded.least),"
                " reason = CASE WHEN excluded.urgency >= t.urgency THEN excluded.reason ELSE t.reason END"
                " RETURNING group_key, task_id"
            ),
            _arrays(_TASK, rows),
        )
        return {row.group_key: row.task_id for row in found}

    async def withdraw(self, unit: UnitOfWork, members: Collection[str]) -> None:
        rows = await unit.connection.execute(
            text(
                "UPDATE followup.task_members AS m SET open = false FROM followup.tasks AS t"
                " WHERE t.task_id = m.task_id AND t.state <> 'done' AND m.open"
                " AND m.member = ANY(CAST(:members AS text[])) RETURNING m.task_id"
            ),
            {"members": list(members)},
        )
        if touched := sorted({row.task_id for row in rows}):
            await unit.connection.execute(
                text(
                    "UPDATE followup.tasks AS t SET state = 'done', done_by = 'headsup', done_at = :now,"
                    " note = 'no longer needed' WHERE task_id = ANY(CAST(:ids AS text[])) AND state <> 'done'"
                    " AND NOT EXISTS (SELECT 1 FROM followup.task_members m WHERE m.task_id = t.task_id AND m.open)"
                ),
                {"ids": touched, "now": unit.now},
            )


def _case_row(case: Case) -> dict[str, Any]:
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
        "facts": _encode(case),
    }


def _promise_row(case: Case, identity: str) -> dict[str, Any]:
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


def _task_row(case: Case, task: Task, now: datetime) -> dict[str, Any]:
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
