"""The follow-up's REST: cases with their timelines, people's tasks, the promise ledger, figures; and replies in."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Depends, Header, Query
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from services.followup.handlers import FollowUp
from services.followup.queries import Queries
from shared.access import Caller
from shared.events.envelope import event, event_id, to_message
from shared.events.replies import ReplyReceived
from shared.events.stores import Role
from shared.paging import MOST, Cursor, CursorText, Limit, Page, page, read_cursor
from shared.personal import mask
from shared.problems import Problem
from shared.process import Doors, Parts
from shared.store.unit import UnitOfWork

SOURCE: Final = "headsup/followup/rest"
SCHEMA: Final = "followup"
HEALTHY: Final = 0.95
"""A kind of promise kept less often than this deserves other words."""

Id = Annotated[str | None, Query(max_length=128)]
State = Annotated[str | None, Query(max_length=32)]


class ReplyText(BaseModel):
    text: str = Field(min_length=1, max_length=4000, repr=False)


class Note(BaseModel):
    note: str = Field(default="", max_length=4000)


class Answer(BaseModel):
    """`number` takes that option for the customer; `text` is a note of what was answered by other means."""

    number: Annotated[int | None, Field(ge=1, le=99)] = None
    text: str = Field(default="", max_length=4000)

    @model_validator(mode="after")
    def _says_something(self) -> "Answer":
        if self.number is None and not self.text.strip():
            raise ValueError("give a number, a text, or both")
        return self


def router(doors: Doors, parts: Parts, followup: FollowUp, queries: Queries, nudge: Callable[[], None]) -> APIRouter:
    """The follow-up's routes. `nudge` is called after what people did was committed."""
    routes = APIRouter(prefix="/v1", tags=["follow-up"])
    reader = Depends(doors.access.needs(Role.READ))
    operator = Depends(doors.access.needs(Role.OPERATOR))

    @asynccontextmanager
    async def work() -> AsyncIterator[UnitOfWork]:
        async with parts.database.transaction() as connection:
            unit = UnitOfWork(connection, SCHEMA, parts.clock.now())
            yield unit
            await unit.flush()
        nudge()

    @routes.get("/cases")
    async def cases(
        *,
        order_id: Id = None,
        state: State = None,
        store_id: Id = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        caller: Caller = reader,
    ) -> Page:
        """Cases, the newest first. `state`: open (nobody was told yet), told, chosen, remedied or closed."""
        async with parts.database.transaction() as connection:
            rows = await queries.cases(
                connection, limit + 1, read_cursor(cursor), order_id=order_id, state=state, stores=_of(caller, store_id)
            )
        return page(rows, limit, _case, lambda row: Cursor(row["detected_at"], row["case_id"]))

    @routes.get("/cases/{case_id}")
    async def case(case_id: str, caller: Caller = reader) -> dict[str, Any]:
        """One case with its incident, both clocks, promises, tasks and timeline."""
        async with parts.database.transaction() as connection:
            row = await _found(queries.cases(connection, 1, None, case_id=case_id), "case")
            caller.must_see(row["store_id"])
            promises = await queries.promises(connection, MOST, None, case_id=case_id)
            tasks = await queries.tasks(connection, MOST, None, case_id=case_id)
            timeline = [dict(moment) for moment in await queries.timeline(connection, case_id)]
        incident = [m["data"] for m in timeline if m["type"].startswith("incident.")]
        return {
            **_case(row),
            "incident": max(incident, key=lambda data: data.get("revision", 0), default=None),
            "promises": [dict(promise) for promise in promises],
            "tasks": [_task(task) for task in tasks],
            "timeline": timeline,
        }

    @routes.post("/cases/{case_id}/replies", status_code=202)
    async def reply(
        case_id: str,
        body: ReplyText,
        idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
        caller: Caller = operator,
    ) -> dict[str, str]:
        """Take what the customer answered, by whatever way it came. Runs of seven and more digits are masked before it
        is written anywhere. The same `Idempotency-Key` is the same reply."""
        async with parts.database.transaction() as connection:
            row = await _found(queries.cases(connection, 1, None, case_id=case_id), "case")
        caller.must_see(row["store_id"])
        reply_id = event_id("reply", case_id, idempotency_key) if idempotency_key else str(uuid4())
        now = parts.clock.now()
        data = ReplyReceived(
            reply_id=reply_id,
            order_id=row["order_id"],
            store_id=row["store_id"],
            incident_ids=(case_id,),
            channel="rest",
            text=mask(body.text),
            received_at=now,
            by=caller.name,
        )
        await doors.producer.send([to_message(event(data, id=reply_id, source=SOURCE, time=now))])
        return {"reply_id": reply_id}

    @routes.get("/tasks")
    async def tasks(
        *,
        order_id: Id = None,
        kind: State = None,
        state: State = None,
        store_id: Id = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        caller: Caller = reader,
    ) -> Page:
        """People's tasks, the newest first. `state`: open, claimed or done. A wave is one task: `count` says how many
        cases it stands for, `order_ids` names up to 1,000 of their orders, and `wave_id` is what
        `POST /v1/waves/{wave_id}/release` answers it with, once sending has paused for it."""
        wanted = {"order_id": order_id, "kind": kind, "state": state, "stores": _of(caller, store_id)}
        async with parts.database.transaction() as connection:
            rows = await queries.tasks(connection, limit + 1, read_cursor(cursor), **wanted)
        return page(rows, limit, _task, lambda row: Cursor(row["created_at"], row["task_id"]))

    async def one_task(unit: UnitOfWork, task_id: str) -> dict[str, Any]:
        return _task(await _found(queries.tasks(unit.connection, 1, None, task_id=task_id), "task"))

    async def open_task(unit: UnitOfWork, task_id: str, caller: Caller) -> Mapping[str, Any]:
        """The task, locked and not done yet. Its case, where it has a single one, is locked first, as everywhere."""
        before = await _found(queries.tasks(unit.connection, 1, None, task_id=task_id), "task")
        if before["store_id"] is not None or caller.stores is not None:
            caller.must_see(before["store_id"] or "")
        if before["case_id"] is not None:
            await followup.lock(unit, before["case_id"])
        row = await queries.task_for_update(unit.connection, task_id)
        assert row is not None
        if row["state"] == "done":
            raise Problem(409, f"The task is done already, by {row['done_by']}.")
        return {**row, "case_id": before["case_id"]}

    async def finish(unit: UnitOfWork, row: Mapping[str, Any], by: str, note: str) -> None:
        await queries.done(unit.connection, row["task_id"], by, note, unit.now)
        if row["case_id"] is not None:
            await followup.done(unit, row["case_id"], row["kind"], by, note)

    @routes.post("/tasks/{task_id}/claim")
    async def claim(task_id: str, caller: Caller = operator) -> dict[str, Any]:
        """Say that you are on it. 409 where another is."""
        async with work() as unit:
            row = await open_task(unit, task_id, caller)
            if row["state"] == "claimed" and row["claimed_by"] != caller.name:
                raise Problem(409, f"The task is claimed, by {row['claimed_by']}.")
            await queries.claim(unit.connection, task_id, caller.name)
            return await one_task(unit, task_id)

    @routes.post("/tasks/{task_id}/done")
    async def done(task_id: str, body: Note | None = None, caller: Caller = operator) -> dict[str, Any]:
        """It is done, whoever had claimed it. What a failed remedy or a broken promise left to do is then a person's,
        and the case closes."""
        async with work() as unit:
            row = await open_task(unit, task_id, caller)
            await finish(unit, row, caller.name, mask(body.note) if body else "")
            return await one_task(unit, task_id)

    @routes.post("/tasks/{task_id}/answer")
    async def answer(task_id: str, body: Answer, caller: Caller = operator) -> dict[str, Any]:
        """Answer for the customer: take option `number`, or note what was said. Either way the task is done."""
        async with work() as unit:
            row = await open_task(unit, task_id, caller)
            if body.number is not None:
                if row["case_id"] is None:
                    raise Problem(409, "This task is about no single case: nothing can be chosen in it.")
                await followup.choose(unit, row["case_id"], body.number, caller.name)
            await finish(unit, row, caller.name, mask(body.text))
            return await one_task(unit, task_id)

    @routes.get("/promises")
    async def promises(
        *,
        order_id: Id = None,
        state: State = None,
        store_id: Id = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        caller: Caller = reader,
    ) -> Page:
        """The promise ledger, the newest first. `state`: open, at_risk, kept, broken or void."""
        async with parts.database.transaction() as connection:
            rows = await queries.promises(
                connection, limit + 1, read_cursor(cursor), order_id=order_id, state=state, stores=_of(caller, store_id)
            )
        return page(rows, limit, dict, lambda row: Cursor(row["made_at"], row["promise_id"]))

    @routes.post("/promises/{promise_id}/kept")
    async def kept(promise_id: str, caller: Caller = operator) -> dict[str, Any]:
        """Tick a promise that no event tells of. 409 where it is broken or void already."""
        async with work() as unit:
            row = await _found(queries.promises(unit.connection, 1, None, promise_id=promise_id), "promise")
            caller.must_see(row["store_id"])
            await followup.tick(unit, row["case_id"], promise_id, caller.name)
            return dict(await _found(queries.promises(unit.connection, 1, None, promise_id=promise_id), "promise"))

    @routes.get("/stats")
    async def stats(
        since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
        until: Annotated[AwareDatetime | None, Query(alias="to")] = None,
        store_id: Id = None,
        caller: Caller = reader,
    ) -> dict[str, Any]:
        """Figures by store and scenario, of incidents detected in [from, to). Times in seconds from detection to the
        first `Sent`; money in the orders' currency."""
        async with parts.database.transaction() as connection:
            found = await queries.stats(connection, since, until, _of(caller, store_id))
        kinds = [
            {
                **kind,
                "share": kind["kept"] / kind["settled"],
                "downgraded": kind["kept"] < HEALTHY * kind["settled"],
            }
            for kind in found["kinds"]
        ]
        return {
            "groups": [_figures(group) for group in found["groups"]],
            "promise_kinds": kinds,
            "open_tasks": found["open_tasks"],
        }

    return routes


async def _found(rows: Any, what: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = next(iter(await rows), None)
    if found is None:
        raise Problem(404, f"There is no such {what}.")
    return found


def _of(caller: Caller, store_id: str | None) -> list[str] | None:
    """The stores to list: the one asked for, or all that the caller sees (None: every one)."""
    if store_id is not None:
        caller.must_see(store_id)
        return [store_id]
    return None if caller.stores is None else sorted(caller.stores)


def _case(row: Mapping[str, Any]) -> dict[str, Any]:
    contacted: datetime | None = row["contacted_at"]

    def seconds(name: str) -> int | None:
        return None if contacted is None else max(0, int((contacted - row[name]).total_seconds()))

    return {
        **row,
        "incident_id": row["case_id"],
        "occurred_to_contacted_seconds": seconds("occurred_at"),
        "detected_to_contacted_seconds": seconds("detected_at"),
    }


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "order_ids": row["order_ids"] or []}


def _figures(group: Mapping[str, Any]) -> dict[str, Any]:
    told = group["told"]
    return {
        **{name: group[name] for name in ("store_id", "scenario", "incidents", "told", "replies", "closed", "choices")},
        "detected_to_contacted_seconds": {"median": group["median"], "p95": group["p95"]},
        "within_2h": group["within_2h"] / told if told else None,
        "promises": {state: group["promises"].get(state, 0) for state in ("open", "at_risk", "kept", "broken", "void")},
        "compensation": group["compensation"],
        "score": None if group["score"] is None else round(float(group["score"]), 2),
        "open_tasks": group["open_tasks"],
    }
