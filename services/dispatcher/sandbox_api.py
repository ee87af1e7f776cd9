"""The sandbox's REST: the demo phone, a customer's answer, and how to make the sandbox misbehave."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from services.dispatcher.api import Desk
from services.dispatcher.channels.port import Inbound
from services.dispatcher.channels.sandbox import DM, SMS, Behaviour
from shared.access import Caller
from shared.events.base import format_time
from shared.events.deliveries import Channel as Kind
from shared.events.stores import Role
from shared.paging import Cursor, CursorText, Limit, Page, page, read_cursor
from shared.problems import Problem


class Behave(BaseModel):
    """How the next `count` messages are treated; `seconds` is how long a delay takes, or after which time a failure
    says to try again."""

    behaviour: Behaviour
    count: int = Field(default=1, ge=1, le=100_000)
    seconds: float = Field(default=0.0, ge=0, le=15)


class Reply(BaseModel):
    """What a customer writes back: to a message, or from a phone."""

    message_id: str | None = None
    phone: str | None = Field(default=None, min_length=3, max_length=64, repr=False)
    text: str = Field(min_length=1, max_length=4000, repr=False)


def router(desk: Desk) -> APIRouter:
    routes = APIRouter(prefix="/v1/sandbox", tags=["sandbox"])

    reads, operates = Depends(desk.access.needs(Role.READ)), Depends(desk.access.needs(Role.OPERATOR))

    @routes.get("/messages")
    async def messages(
        caller: Annotated[Caller, reads], order_id: str | None = None, limit: Limit = 100, cursor: CursorText = None
    ) -> Page:
        """What customers would have got, the newest first."""
        async with desk.parts.database.transaction() as connection:
            rows = await desk.reading.sandbox_messages(
                connection, {"order_id": order_id}, caller.stores, read_cursor(cursor), limit + 1
            )
        return page(rows, limit, _message, lambda row: Cursor(row["at"], row["message_id"]))

    @routes.post("/behaviour")
    async def behaviour(wish: Behave, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Make the sandbox misbehave for the next messages, whichever store sends them."""
        caller.must_see_all()
        async with desk.parts.database.transaction() as connection:
            await desk.reading.behave(connection, str(wish.behaviour), wish.seconds, wish.count)
        return {"behaviour": wish.behaviour, "count": wish.count}

    @routes.post("/replies", status_code=202)
    async def replies(reply: Reply, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Answer as a customer would. A phone may have heard of any store, so a key for some answers messages only."""
        inbound_id = uuid4().hex
        if reply.phone is not None:
            caller.must_see_all()
        if reply.message_id is None:
            if reply.phone is None:
                raise Problem(422, "Give a message_id or a phone.")
            message = Inbound(inbound_id, reply.text, sender=reply.phone)
            await desk.inbox.inbound(SMS, Kind.SMS, [message])
            return {"inbound_id": inbound_id}
        async with desk.parts.database.transaction() as connection:
            found = await desk.reading.sandbox_messages(connection, {"message_id": reply.message_id}, None, None, 1)
        if not found:
            raise Problem(404, "There is no such message.")
        caller.must_see(found[0]["store_id"])
        message = Inbound(inbound_id, reply.text, sender=reply.phone or "", reference=found[0]["reference"])
        provider = SMS if found[0]["provider"] == SMS else DM
        await desk.inbox.inbound(provider, Kind(found[0]["channel"]), [message])
        return {"inbound_id": inbound_id}

    return routes


def _message(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "message_id": row["message_id"],
        "order_id": row["order_id"],
        "notice_id": row["notice_id"],
        "store_id": row["store_id"],
        "purpose": row["purpose"],
        "channel": row["channel"],
        "to": f"…{row['recipient_end']}" if row["recipient_end"] else "",
        "signature": row["signature"],
        "text": row["text"],
        "media": row["media"],
        "at": format_time(row["at"]),
    }
