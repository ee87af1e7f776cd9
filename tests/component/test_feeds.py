"""A dead feed must not look like trouble; and what the detector told can be looked at."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.detector import api
from services.detector.listing import Incidents
from shared.access import Access, key_hash
from shared.bus import connect
from shared.clock import VirtualClock
from shared.events.envelope import event, to_message
from shared.events.stores import Feeds, StoreConfigured
from shared.http import create_app
from shared.process import Doors
from shared.telemetry import Metrics
from tests.support.running import SEALER, Rig, at_work, prepare_topics
from tests.support.stories import START, Order, hours

KEY = "a-key-of-sixteen-or-more"


@pytest.fixture
async def rig(database: str, unique: str) -> AsyncIterator[Rig]:
    engine = create_async_engine(database)
    bus = connect("local:", engine)
    topics = (f"orders-{unique}", f"settings-{unique}")
    await prepare_topics(bus, *topics)
    async with at_work(bus, database, *topics, clock=VirtualClock(START + hours(1))) as rig:
        yield rig
    await bus.close()
    await engine.dispose()


def clock(rig: Rig) -> VirtualClock:
    assert isinstance(rig.clock, VirtualClock)
    return rig.clock


async def configure(rig: Rig, minutes: int | None) -> None:
    store = StoreConfigured(store_id="shop-1", feeds=Feeds(orders_minutes=minutes))
    message = to_message(event(store, id=f"store-{minutes}", source="test", time=rig.clock.now()))
    await rig.send(replace(message, topic=rig.topics[1]))
    await rig.settled()


async def test_silence_of_a_dead_feed_is_held_and_released_when_it_speaks_again(rig: Rig) -> None:
    await configure(rig, 60)
    await rig.publish([Order("T1").paid(promise=48)])
    await rig.settled()
    clock(rig).advance_to(START + hours(36))
    await rig.settled()
    [opened] = await rig.incidents("T1")
    assert opened.data.hold == "feed_stale"

    clock(rig).advance(timedelta(minutes=5))
    await rig.publish([Order("T2").paid(36, promise=48)])
    await rig.settled()
    clock(rig).advance(timedelta(minutes=6))
    await rig.settled()
    _, released = await rig.incidents("T1")
    assert (released.type, released.data.hold) == ("incident.updated.v1", None)
    assert released.data.new_date == opened.data.new_date


async def test_a_feed_that_speaks_is_believed(rig: Rig) -> None:
    await configure(rig, 60)
    await rig.publish([Order("T1").paid(promise=48)])
    await rig.settled()
    clock(rig).advance_to(START + hours(35.5))
    await rig.publish([Order("T2").paid(35.5, promise=48)])
    await rig.settled()
    clock(rig).advance_to(START + hours(36))
    await rig.settled()
    [opened] = await rig.incidents("T1")
    assert opened.data.hold is None


async def test_a_warehouses_own_word_needs_no_feed(rig: Rig) -> None:
    await configure(rig, 60)
    await rig.publish([Order("T1").paid(promise=48)])
    await rig.settled()
    clock(rig).advance_to(START + hours(20))
    await rig.publish([Order("T1").estimate(1, ship_at=80)])
    await rig.settled()
    [opened] = await rig.incidents("T1")
    assert opened.data.hold is None


async def test_a_store_that_declares_nothing_is_never_stale(rig: Rig) -> None:
    await configure(rig, None)
    await rig.publish([Order("T1").paid(promise=48)])
    await rig.settled()
    clock(rig).advance_to(START + hours(36))
    await rig.settled()
    [opened] = await rig.incidents("T1")
    assert opened.data.hold is None


@pytest.fixture
async def rest(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    doors = Doors(rig.bus.producer(), Access(key_hash(KEY)))
    app = create_app([], Metrics(), [api.router(doors, SEALER, Incidents(rig.database))])
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        yield client


async def pages(rest: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await rest.get("/v1/incidents", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        params = {**params, "cursor": page["next_cursor"]}


async def test_incidents_are_listed_page_by_page_without_addresses(rig: Rig, rest: httpx.AsyncClient) -> None:
    orders = [Order(f"L{n}") for n in range(7)]
    await rig.publish([o.paid() for o in orders] + [o.estimate(0.5, ship_at=80) for o in orders])
    await rig.settled()
    await rig.publish([orders[0].shipped(1)])
    await rig.settled()
    found = await pages(rest, limit=3)
    assert sorted(i["order_id"] for i in found) == sorted(o.order_id for o in orders)
    assert "contacts" not in str(found)
    [resolved] = await pages(rest, state="resolved")
    assert (resolved["order_id"], resolved["how"]) == ("L0", "shipped")
    [one] = await pages(rest, order_id="L1")
    shown = (await rest.get(f"/v1/incidents/{one['incident_id']}")).json()
    assert shown["evidence"] == ["L1-paid", "L1-estimate-0.5-80"]
    assert (await rest.get("/v1/incidents/none")).status_code == 404
    assert (await rest.get("/v1/incidents", params={"cursor": "nonsense"})).status_code == 400
