"""What people set, as a service sees it: newest wins in any order, stops, keys, and who may call what."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends

from shared.access import Access, Caller, key_hash
from shared.events.envelope import Event, event
from shared.events.incidents import Scenario
from shared.events.stores import KeySet, Mode, NewStores, Role, SendingStopped, StoreConfigured, mode_of
from shared.http import create_app
from shared.store import stores
from shared.store.database import Database
from shared.store.stores import StoredKeys
from shared.telemetry import Metrics
from tests.support.stories import START

KEY, OTHER = "a-key-of-sixteen-or-more", "another-key-of-sixteen"


def setting(data: Any, minute: int) -> Event[Any]:
    return event(data, id=f"{data.key}-{minute}", source="test", time=START + timedelta(minutes=minute))


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    found = Database(database, pool_size=4)
    yield found
    await found.close()


async def take(db: Database, *events: Event[Any]) -> list[Event[Any]]:
    async with db.transaction() as connection:
        return list(await stores.project(connection, "detector", events))


async def test_the_newest_word_about_a_store_holds_in_any_order(db: Database) -> None:
    words = [
        setting(StoreConfigured(store_id="s", modes={Scenario.SHIPPING_DELAY: mode}), minute)
        for minute, mode in enumerate((Mode.SHADOW, Mode.LIVE, Mode.OFF))
    ]
    for order in itertools.permutations(words):
        await take(db, *order, *order)
        async with db.transaction() as connection:
            found = await stores.stores(connection, "detector", ["s", "nobody"])
        assert found.keys() == {"s"}
        assert mode_of(found["s"], Scenario.SHIPPING_DELAY, NewStores.LIVE) is Mode.OFF


async def test_only_news_is_reported(db: Database) -> None:
    first, second = (setting(StoreConfigured(store_id="s", name=name), n) for n, name in enumerate("ab"))
    assert await take(db, second) == [second]
    assert await take(db, first, second) == []


async def test_a_stop_and_a_store_of_one_name_stand_side_by_side(db: Database) -> None:
    stop = SendingStopped(store_id="s", channel="sms")
    await take(db, setting(stop, 1), setting(StoreConfigured(store_id="s"), 2))
    async with db.transaction() as connection:
        [found] = await stores.stops(connection, "detector")
    assert found.covers("s", "shipping_delay", "sms")
    assert not found.covers("s", "shipping_delay", "chat")
    assert not found.covers("t", "shipping_delay", "sms")
    await take(db, setting(stop.model_copy(update={"stopped": False}), 3), setting(stop, 1))
    async with db.transaction() as connection:
        assert await stores.stops(connection, "detector") == []


@pytest.fixture
async def rest(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    access = Access(key_hash(KEY), StoredKeys(db, "detector"))
    routes = APIRouter()

    @routes.get("/look")
    async def look(caller: Caller = Depends(access.needs(Role.READ))) -> dict[str, Any]:  # noqa: B008
        caller.must_see("s")
        return {"name": caller.name, "role": caller.role}

    @routes.get("/act")
    async def act(caller: Caller = Depends(access.needs(Role.OPERATOR))) -> str:  # noqa: B008
        return caller.name

    app = create_app([], Metrics(), [routes])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_the_first_key_may_do_all(rest: httpx.AsyncClient) -> None:
    assert (await rest.get("/look", headers=bearer(KEY))).json() == {"name": "first key", "role": "admin"}
    assert (await rest.get("/act", headers=bearer(KEY))).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearer("unknown"), bearer(""), {"Authorization": "Basic YTpi"}, bearer("ключ")]
)
async def test_who_gives_no_known_key_is_told_so(rest: httpx.AsyncClient, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await rest.get("/look", headers=raw)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("role", "looks", "acts"),
    [(Role.INGEST, 403, 403), (Role.READ, 200, 403), (Role.OPERATOR, 200, 200), (Role.ADMIN, 200, 200)],
)
async def test_a_key_does_what_its_role_may(
    db: Database, rest: httpx.AsyncClient, role: Role, looks: int, acts: int
) -> None:
    await take(db, setting(KeySet(name="erp", sha256=key_hash(OTHER), role=role), 1))
    assert (await rest.get("/look", headers=bearer(OTHER))).status_code == looks
    assert (await rest.get("/act", headers=bearer(OTHER))).status_code == acts


async def test_a_key_is_for_its_stores_and_ends_when_revoked(db: Database, rest: httpx.AsyncClient) -> None:
    key = KeySet(name="erp", sha256=key_hash(OTHER), role=Role.READ, stores=("t",))
    await take(db, setting(key, 1))
    assert (await rest.get("/look", headers=bearer(OTHER))).status_code == 403
    await take(db, setting(key.model_copy(update={"revoked": True}), 2))
    assert await StoredKeys(db, "detector")(key_hash(OTHER)) is None
