"""The composer's REST: stores, stops, waves, keys and the audit; templates and their preview.

What people set is appended to `headsup.settings.v1`; a call returns once the composer's own view shows it, or after
`SHOWN_SECONDS` with 202: then it is durable and about to hold.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Final, Protocol
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.composer import bodies
from services.composer.rules.write import Press
from shared.access import Caller, key_hash
from shared.events.base import Id, Text
from shared.events.envelope import event, instant, to_message
from shared.events.stores import ANY, KeySet, NewStores, Role, SendingStopped, Setting, StoreConfigured, WaveReleased
from shared.http import bounded_body
from shared.paging import Cursor, CursorText, Limit, Page, page, read_cursor
from shared.problems import Problem
from shared.process import Doors, Parts

SOURCE: Final = "headsup/composer/rest"
SHOWN_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.05
MAX_BODY: Final = 256 * 1024


class View(Protocol):
    """The composer's own view of what people have set."""

    async def store(self, store_id: str) -> StoreConfigured | None: ...
    async def stores(self) -> Sequence[StoreConfigured]: ...
    async def keys(self) -> Sequence[KeySet]: ...
    async def set_at(self, key: str) -> int | None: ...
    async def wave_store(self, wave_id: str) -> str | None: ...
    async def audit(self, store_ids: Sequence[str] | None, after: Cursor | None, limit: int) -> Sequence[Any]: ...


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stop(_Body):
    """`*` stands for all; `stopped` false lifts the stop with the same store, scenario and channel."""

    store_id: Id = ANY
    scenario: Annotated[str, Field(min_length=1, max_length=64)] = ANY
    channel: Annotated[str, Field(min_length=1, max_length=64)] = ANY
    stopped: bool = True
    reason: Text = ""


class Release(_Body):
    """`sends` false: the wave's notices are dropped."""

    sends: bool = True


class NewKey(_Body):
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^/\x00-\x1f]+$")]
    role: Role
    stores: Annotated[list[Id], Field(max_length=1000)] | None = None


class _Settings:
    """Appends what people set, and waits until it holds here."""

    def __init__(self, doors: Doors, parts: Parts, view: View) -> None:
        self._producer, self._clock, self._view = doors.producer, parts.clock, view

    async def append(self, setting: Setting, response: Response) -> None:
        """Durable on return. Later than what it replaces, on a clock that stands still too."""
        before = await self._view.set_at(setting.key)
        at = self._clock.now()
        if before is not None:
            at = max(at, instant(before + 1))
        said = event(setting, id=str(uuid4()), source=SOURCE, time=at)
        await self._producer.send([to_message(said)])
        for _ in range(int(SHOWN_SECONDS / LOOK_SECONDS)):
            shown = await self._view.set_at(setting.key)
            if shown is not None and shown >= said.stamp.time_us:
                return
            await asyncio.sleep(LOOK_SECONDS)
        response.status_code = 202


def router(doors: Doors, parts: Parts, view: View, press: Press, new_stores: NewStores) -> APIRouter:
    """The composer's routes."""
    routes = APIRouter(prefix="/v1", tags=["composer"])
    settings = _Settings(doors, parts, view)
    needs = doors.access.needs
    _texts(routes, doors, parts, view, press)
    _keys(routes, doors, view, settings)

    @routes.get("/stores")
    async def stores(caller: Annotated[Caller, Depends(needs(Role.READ))]) -> Page:
        """Every store that somebody has set up."""
        found = await view.stores()
        return Page(items=[bodies.shown(store) for store in found if caller.sees(store.store_id)])

    @routes.get("/stores/{store_id}")
    async def store(store_id: str, caller: Annotated[Caller, Depends(needs(Role.READ))]) -> dict[str, Any]:
        """One store as it is set up."""
        caller.must_see(store_id)
        found = await view.store(store_id)
        if found is None:
            raise Problem(404, f"Nobody has set up this store yet; what holds for new stores is: {new_stores}.")
        return bodies.shown(found)

    @routes.put("/stores/{store_id}", openapi_extra=bodies.STORE_BODY)
    async def put_store(
        store_id: str, request: Request, response: Response, caller: Annotated[Caller, Depends(needs(Role.ADMIN))]
    ) -> dict[str, Any]:
        """Set up a store; it replaces all that was set before, but for `live_from`: left out it stays, and is now where
        a scenario goes to ramp or live for the first time. `test_phones` are phone numbers as the orders carry them,
        kept as look-up values only."""
        caller.must_see(store_id)
        body = await bounded_body(request, MAX_BODY)
        named = bodies.store(store_id, body, by=caller.name, lookup=parts.sealer.lookup)
        configured = bodies.begun(named, await view.store(store_id), parts.clock.now())
        await settings.append(configured, response)
        return bodies.shown(configured)

    @routes.post("/stop")
    async def stop(
        body: Stop, response: Response, caller: Annotated[Caller, Depends(needs(Role.OPERATOR))]
    ) -> dict[str, Any]:
        """Halt (or let go on) everything that has not gone out."""
        caller.must_see(body.store_id)
        stopped = SendingStopped(**body.model_dump(), by=caller.name)
        await settings.append(stopped, response)
        return stopped.model_dump(mode="json")

    @routes.post("/waves/{wave_id}/release")
    async def release(
        wave_id: str, body: Release, response: Response, caller: Annotated[Caller, Depends(needs(Role.OPERATOR))]
    ) -> dict[str, Any]:
        """Let a paused wave go on, or drop it."""
        store_id = await view.wave_store(wave_id)
        if store_id is None:
            raise Problem(404, "No wave has this id.")
        caller.must_see(store_id)
        released = WaveReleased(store_id=store_id, wave_id=wave_id, sends=body.sends, by=caller.name)
        await settings.append(released, response)
        return released.model_dump(mode="json")

    @routes.get("/audit")
    async def audit(
        caller: Annotated[Caller, Depends(needs(Role.READ))], limit: Limit = 50, cursor: CursorText = None
    ) -> Page:
        """Who set what, from what, to what; newest first."""
        stores = None if caller.stores is None else sorted(caller.stores)
        rows = await view.audit(stores, read_cursor(cursor), limit + 1)
        return page(rows, limit, lambda row: {**row._asdict()}, lambda row: Cursor(row.at, row.id))

    return routes


def _keys(routes: APIRouter, doors: Doors, view: View, settings: _Settings) -> None:
    admin = doors.access.needs(Role.ADMIN)

    @routes.get("/keys")
    async def keys(caller: Annotated[Caller, Depends(admin)]) -> Page:
        """All API keys but the first, without the keys themselves."""
        return Page(items=[_key(key) for key in await view.keys()])

    @routes.post("/keys", status_code=201)
    async def new_key(body: NewKey, response: Response, caller: Annotated[Caller, Depends(admin)]) -> dict[str, Any]:
        """Make a key. It is shown this once: only its hash is kept."""
        _all_stores(caller)
        if any(key.name == body.name and not key.revoked for key in await view.keys()):
            raise Problem(409, "There is a key of this name: revoke it first, or choose another name.")
        key = f"hu_{secrets.token_urlsafe(32)}"
        stores = None if body.stores is None else tuple(body.stores)
        made = KeySet(name=body.name, sha256=key_hash(key), role=body.role, stores=stores, by=caller.name)
        await settings.append(made, response)
        return {**_key(made), "key": key}

    @routes.post("/keys/{name}/revoke")
    async def revoke(name: str, response: Response, caller: Annotated[Caller, Depends(admin)]) -> dict[str, Any]:
        """End a key's life. Every service stops knowing it within seconds."""
        _all_stores(caller)
        found = next((key for key in await view.keys() if key.name == name), None)
        if found is None:
            raise Problem(404, "There is no key of this name.")
        revoked = found.model_copy(update={"revoked": True, "by": caller.name})
        await settings.append(revoked, response)
        return _key(revoked)


def _all_stores(caller: Caller) -> None:
    if caller.stores is not None:
        raise Problem(403, "This API key is for some stores only: it makes and revokes no keys.")


def _key(key: KeySet) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"sha256"})


def _texts(routes: APIRouter, doors: Doors, parts: Parts, view: View, press: Press) -> None:
    needs = doors.access.needs

    @routes.get("/templates", dependencies=[Depends(needs(Role.READ))])
    async def templates() -> Page:
        """Every template: scenario, purpose, language, version, and the channels that it has a text for."""
        return Page(items=bodies.templates(press.catalogue))

    @routes.post("/preview", openapi_extra=bodies.PREVIEW_BODY)
    async def preview(request: Request, caller: Annotated[Caller, Depends(needs(Role.OPERATOR))]) -> dict[str, Any]:
        """What would be written for these facts: texts by channel, options, segments, and what would hold it. Nothing
        is kept and nothing is sent."""
        asked = bodies.preview(await bounded_body(request, MAX_BODY), parts.clock.now())
        caller.must_see(asked.incident.store_id)
        return bodies.previewed(asked, await view.store(asked.incident.store_id), press, parts.clock.now())
