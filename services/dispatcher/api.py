"""The dispatcher's REST: notices and what people do with them, opt-outs, channels, and providers' hooks."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, SecretStr

from services.dispatcher.acts import Acts, Refused
from services.dispatcher.channels.port import Channel, Hooks
from services.dispatcher.inbox import Inbox
from services.dispatcher.ledger import Ledger
from services.dispatcher.reading import Listed, Reading, brief, wave, whole
from shared.access import Access, Caller
from shared.errors import Reject
from shared.events.base import Id, format_time
from shared.events.contacts import Lookup, RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.events.stores import Role
from shared.http import bounded_body
from shared.paging import Cursor, CursorText, Limit, Page, page, read_cursor
from shared.problems import Problem
from shared.process import Parts
from shared.store.unit import UnitOfWork

MOST_AT_ONCE = 1000
MAX_HOOK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Provider:
    """A channel as the REST knows it. Without `secret` nobody may call back."""

    channel: Channel
    hooks: Hooks | None = None
    secret: SecretStr = field(default_factory=lambda: SecretStr(""))


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes work with."""

    parts: Parts
    access: Access
    schema: str
    ledger: Ledger
    reading: Reading
    acts: Acts
    inbox: Inbox
    providers: Mapping[str, Provider]


class Ids(BaseModel):
    notice_ids: list[Id] = Field(min_length=1, max_length=MOST_AT_ONCE)


class OptOut(BaseModel):
    """A customer who wants no more messages from a store, by the number or by its look-up value."""

    store_id: Id
    phone: str | None = Field(default=None, min_length=3, max_length=64, repr=False)
    lookup: Lookup | None = None
    channel: Kind = Kind.SMS


def router(desk: Desk) -> APIRouter:
    """The dispatcher's routes, but for the sandbox's."""
    routes = APIRouter(prefix="/v1")
    routes.include_router(_notices(desk))
    routes.include_router(_waves(desk))
    routes.include_router(_opt_outs(desk))
    routes.include_router(_channels(desk))
    routes.include_router(_hooks(desk))
    return routes


def _notices(desk: Desk) -> APIRouter:
    routes = APIRouter(tags=["notices"])
    reads, operates = Depends(desk.access.needs(Role.READ)), Depends(desk.access.needs(Role.OPERATOR))

    @routes.get("/notices")
    async def notices(
        *,
        caller: Annotated[Caller, reads],
        order_id: str | None = None,
        incident_id: str | None = None,
        store_id: str | None = None,
        purpose: str | None = None,
        state: str | None = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Page:
        """Notices, the newest first: held and suppressed ones too, each with its reason."""
        filters = {
            "order_id": order_id,
            "incident_id": incident_id,
            "store_id": store_id,
            "purpose": purpose,
            "state": state,
        }
        async with desk.parts.database.transaction() as connection:
            rows = await desk.reading.notices(connection, filters, caller.stores, read_cursor(cursor), limit + 1)
        return page(rows, limit, brief, _place)

    @routes.get("/notices/{notice_id}")
    async def notice(notice_id: str, caller: Annotated[Caller, reads]) -> dict[str, Any]:
        """One notice with every attempt."""
        async with desk.parts.database.transaction() as connection:
            found = await desk.reading.notice(connection, notice_id)
        if found is None:
            raise Problem(404, "There is no such notice.")
        caller.must_see(found.notice.data.store_id)
        return whole(found)

    @routes.post("/notices/release")
    async def release_many(ids: Ids, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Let many held notices go; each says whether it was released, and if not, why not."""
        results = await desk.acts.release(dict.fromkeys(ids.notice_ids), caller.name, caller.sees)
        items = [{"notice_id": i, "released": r is None, "detail": r.detail if r else ""} for i, r in results.items()]
        return {"released": sum(r is None for r in results.values()), "items": items}

    @routes.post("/notices/{notice_id}/release")
    async def release(notice_id: str, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Let a held notice go. 409 where it cannot be released, with the reason."""
        return _done(notice_id, await desk.acts.release([notice_id], caller.name, caller.sees))

    @routes.post("/notices/{notice_id}/reject")
    async def reject(notice_id: str, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Let a notice fall that has not gone out."""
        return _done(notice_id, await desk.acts.reject([notice_id], caller.name, caller.sees))

    @routes.post("/notices/{notice_id}/sent")
    async def sent(notice_id: str, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Tick a notice that you have sent yourself; an unknown one is settled by it, too."""
        return _done(notice_id, await desk.acts.sent(notice_id, caller.name, caller.sees))

    return routes


def _waves(desk: Desk) -> APIRouter:
    routes = APIRouter(tags=["notices"])

    @routes.get("/waves")
    async def waves(
        caller: Annotated[Caller, Depends(desk.access.needs(Role.READ))],
        store_id: str | None = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Page:
        """Unusual waves of trouble, the newest first, and what was decided on each."""
        async with desk.parts.database.transaction() as connection:
            rows = await desk.reading.waves(connection, store_id, caller.stores, read_cursor(cursor), limit + 1)
        return page(rows, limit, wave, lambda row: Cursor(row["started_at"], row["wave_id"]))

    return routes


def _opt_outs(desk: Desk) -> APIRouter:
    routes = APIRouter(prefix="/opt-outs", tags=["opt-outs"])
    reads, operates = Depends(desk.access.needs(Role.READ)), Depends(desk.access.needs(Role.OPERATOR))

    @routes.get("")
    async def opt_outs(
        caller: Annotated[Caller, reads],
        store_id: str | None = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Page:
        """Who wants no more messages, by look-up value; the newest first."""
        async with desk.parts.database.transaction() as connection:
            rows = await desk.reading.opt_outs(connection, store_id, caller.stores, read_cursor(cursor), limit + 1)
        return page(rows, limit, _opt_out, lambda row: Cursor(row["at"], row["lookup"]))

    @routes.post("", status_code=201)
    async def opt_out(wish: OptOut, caller: Annotated[Caller, operates]) -> dict[str, Any]:
        """Write to this customer no more."""
        caller.must_see(wish.store_id)
        lookups = {wish.lookup} if wish.lookup else set()
        if wish.phone is not None:
            lookups |= {desk.parts.sealer.lookup(RecipientKind.PHONE, wish.phone)}
        if not lookups:
            raise Problem(422, "Give a phone or a lookup.")
        async with desk.parts.database.transaction() as connection:
            unit = UnitOfWork(connection, desk.schema, desk.parts.clock.now(), durable=True)
            await desk.ledger.opt_out(unit, wish.store_id, lookups, str(wish.channel), caller.name)
            await unit.flush()
        return {"store_id": wish.store_id, "lookups": sorted(lookups)}

    @routes.delete("/{store_id}/{lookup}", status_code=204)
    async def take_back(store_id: str, lookup: str, caller: Annotated[Caller, operates]) -> None:
        """The customer changed their mind."""
        caller.must_see(store_id)
        async with desk.parts.database.transaction() as connection:
            if not await desk.reading.take_back(connection, store_id, lookup):
                raise Problem(404, "Nobody opted out there.")

    return routes


def _channels(desk: Desk) -> APIRouter:
    routes = APIRouter(prefix="/channels", tags=["channels"])

    @routes.get("", dependencies=[Depends(desk.access.needs(Role.READ))])
    async def channels() -> dict[str, Any]:
        """Each channel: what it carries, whether its provider answers, whether it is paused and why."""
        now = desk.parts.clock.now()
        async with desk.parts.database.transaction() as connection:
            pauses = await desk.ledger.pauses(UnitOfWork(connection, desk.schema, now))
        items = []
        for name, provider in desk.providers.items():
            pause, trouble = pauses.get(name), await provider.channel.health()
            paused = pause is not None and pause.until > now
            items.append(
                {
                    "name": name,
                    "kinds": [str(kind) for kind in provider.channel.features.kinds],
                    "healthy": not trouble,
                    "trouble": trouble,
                    "breaker": "open" if paused else "closed",
                    "paused_until": format_time(pause.until) if pause and paused else None,
                    "needs_a_person": bool(pause and paused and pause.account),
                    "reason": pause.reason if pause and paused else "",
                    "failures": pause.failures if pause else 0,
                }
            )
        return {"items": items, "next_cursor": None}

    @routes.post("/{name}/resume")
    async def resume(name: str, caller: Annotated[Caller, Depends(desk.access.needs(Role.OPERATOR))]) -> dict[str, Any]:
        """What was wrong with the account is mended: use the channel again now, for all stores."""
        caller.must_see_all()
        if name not in desk.providers:
            raise Problem(404, "There is no such channel.")
        async with desk.parts.database.transaction() as connection:
            unit = UnitOfWork(connection, desk.schema, desk.parts.clock.now(), durable=True)
            await desk.ledger.paused(unit, {name: None})
            await desk.ledger.look_again_at_paused(unit)
        return {"name": name, "breaker": "closed"}

    return routes


def _hooks(desk: Desk) -> APIRouter:
    """Providers call back here. The secret in the path is theirs alone; the answer comes after the commit."""
    routes = APIRouter(prefix="/hooks/{name}/{secret}", tags=["hooks"])

    async def let_in(request: Request, name: str, secret: str) -> tuple[Provider, Hooks, Mapping[str, str], bytes]:
        provider = desk.providers.get(name)
        expected = provider.secret.get_secret_value() if provider else ""
        # Compared in constant time, and for an unknown provider too.
        if not hmac.compare_digest(secret.encode(), expected.encode()) or not expected:
            raise Problem(404, "There is nothing here.")
        assert provider is not None
        if provider.hooks is None:
            raise Problem(404, "There is nothing here.")
        return provider, provider.hooks, dict(request.headers), await bounded_body(request, MAX_HOOK)

    async def receipts(request: Request, name: str, secret: str) -> Response:
        provider, hooks, headers, body = await let_in(request, name, secret)
        try:
            found = hooks.receipts(dict(request.query_params), headers, body)
        except (Reject, PermissionError) as error:
            raise _refused(error) from None
        await desk.inbox.receipts(provider.channel.name, found)
        return _answer(hooks)

    async def inbound(request: Request, name: str, secret: str) -> Response:
        provider, hooks, headers, body = await let_in(request, name, secret)
        try:
            found = hooks.inbound(dict(request.query_params), headers, body)
        except (Reject, PermissionError) as error:
            raise _refused(error) from None
        await desk.inbox.inbound(provider.channel.name, provider.channel.features.kinds[0], found)
        return _answer(hooks)

    for path, handler in (("/receipts", receipts), ("/inbound", inbound)):
        routes.add_api_route(path, handler, methods=["GET", "POST"], include_in_schema=False, response_model=None)
    return routes


def _answer(hooks: Hooks) -> Response:
    body, media_type = hooks.answer()
    return Response(body, media_type=media_type)


def _refused(error: Reject | PermissionError) -> Problem:
    if isinstance(error, PermissionError):
        return Problem(401, "The signature is not right.")
    return Problem(422, error.reason)


def _done(notice_id: str, results: Mapping[str, Refused | None]) -> dict[str, Any]:
    refused = results[notice_id]
    if refused is None:
        return {"notice_id": notice_id, "done": True}
    raise Problem(404 if refused.missing else 403 if refused.forbidden else 409, refused.detail)


def _place(listed: Listed) -> Cursor:
    return listed.place


def _opt_out(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "store_id": row["store_id"],
        "lookup": row["lookup"],
        "at": format_time(row["at"]),
        "channel": row["channel"],
        "by": row["by_whom"],
    }
