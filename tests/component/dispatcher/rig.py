"""A dispatcher on a real database and the local bus, fed with hand-made notices, and the demo phone it writes to."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import text

from services.dispatcher.__main__ import SCHEMA, build
from shared.access import Access, key_hash
from shared.bus.port import Bus
from shared.clock import VirtualClock
from shared.events.contacts import Contact, RecipientKind
from shared.events.envelope import Event, decode, event, event_id, to_message
from shared.events.incidents import Hold, How, IncidentOpened, IncidentResolved, IncidentUpdated, OrderFacts, Scenario
from shared.events.notices import NoticeComposed, NoticeHold, Option, Purpose, RemedyKind, Texts
from shared.events.orders import Line
from shared.events.stores import Mode, StoreConfigured
from shared.events.topics import DELIVERIES, REPLIES, TOPICS
from shared.http import create_app
from shared.process import Doors, Parts, bus_at
from shared.settings import Settings
from shared.store.database import Database
from shared.telemetry import Metrics
from shared.virtual import Driver
from shared.worker import Worker
from tests.support.running import SEALER, read_topic
from tests.support.stories import PHONE

NOON = datetime(2026, 12, 12, 4, 0, tzinfo=UTC)
"""Noon in Shanghai: no quiet hours."""
KEY = "a-key-for-the-tests"
LOCAL = "local:"


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def contact(value: str = PHONE, kind: RecipientKind = RecipientKind.PHONE, **fields: Any) -> Contact:
    sealed = base64.b64encode(SEALER.seal(value.encode())).decode()
    return Contact(kind=kind, sealed=sealed, lookup=SEALER.lookup(kind, value), **fields)


class Trouble:
    """One order's late shipping, as the detector and the composer tell it."""

    def __init__(self, order_id: str = "T1", *, store_id: str = "shop-1", at: datetime = NOON) -> None:
        self.order_id = order_id
        self.store_id = store_id
        self.at = at
        self.incident_id = event_id(store_id, order_id, "shipping_delay", "")
        self.contacts: tuple[Contact, ...] = (contact(),)

    def incident(self, revision: int = 1, *, date: float = 72, hold: Hold | None = None) -> Event[Any]:
        kind = IncidentOpened if revision == 1 else IncidentUpdated
        return self._incident(kind, revision, date=date, hold=hold)

    def resolved(self, revision: int = 2, how: How = How.SHIPPED) -> Event[Any]:
        return self._incident(IncidentResolved, revision, how=how, resolved_at=self.at)

    def _incident(
        self, kind: type[Any], revision: int, *, date: float = 72, hold: Hold | None = None, **more: Any
    ) -> Event[Any]:
        line = Line(sku="S", name="羊绒围巾", variant="雾蓝", quantity=1, unit_price="129.00")  # type: ignore[arg-type]
        data = kind(
            incident_id=self.incident_id,
            store_id=self.store_id,
            order_id=self.order_id,
            scenario=Scenario.SHIPPING_DELAY,
            revision=revision,
            cause="warehouse_backlog",
            occurred_at=self.at,
            detected_at=self.at,
            contact_due_at=self.at + hours(2),
            new_date=self.at + hours(date),
            facts=OrderFacts(
                order_id=self.order_id,
                customer_id="c-7",
                nickname="小鱼",
                contacts=self.contacts,
                lines=(line,),
                total="129.00",  # type: ignore[arg-type]
                currency="CNY",
                paid_at=self.at,
            ),
            reason="late",
            hold=hold,
            **more,
        )
        return event(data, id=f"{self.order_id}-{kind.__name__}-{revision}", source="test/detector", time=self.at)

    def notice(self, purpose: Purpose = Purpose.FIRST_CONTACT, revision: int = 1, **fields: Any) -> Event[Any]:
        asks = purpose in (Purpose.FIRST_CONTACT, Purpose.UPDATE, Purpose.REMINDER)
        options = tuple(
            Option(number=n, code=code, label=label, promise=label)
            for n, code, label in ((1, RemedyKind.WAIT, "等"), (2, RemedyKind.REFUND, "退款"))
        )
        given: dict[str, Any] = {
            "notice_id": event_id(self.incident_id, str(revision), purpose),
            "incident_id": self.incident_id,
            "revision": revision,
            "store_id": self.store_id,
            "order_id": self.order_id,
            "scenario": Scenario.SHIPPING_DELAY,
            "purpose": purpose,
            "template": "shipping_delay",
            "language": "zh-CN",
            "texts": Texts(sms=f"您的订单{self.order_id}晚发", dm=f"亲，您的订单{self.order_id}晚发", chat=None),
            "options": options if asks else (),
            "contacts": self.contacts,
            "customer_id": "c-7",
            "told_date": self.at + hours(72),
            "contact_due_at": self.at + hours(2),
            "occurred_at": self.at,
            "detected_at": self.at,
            "currency": "CNY",
        }
        data = NoticeComposed(**{**given, **fields})
        return event(data, id=f"composed-{data.notice_id}", source="test/composer", time=self.at)

    def notice_id(self, purpose: Purpose = Purpose.FIRST_CONTACT, revision: int = 1) -> str:
        return event_id(self.incident_id, str(revision), purpose)


BROKEN = NoticeHold(reason="no exact date is known", must="date")


def configured(mode: Mode = Mode.LIVE, *, at: datetime = NOON, store_id: str = "shop-1", **fields: Any) -> Event[Any]:
    given = {"modes": {Scenario.SHIPPING_DELAY: mode}, "name": "雾蓝小店", "by": "test", **fields}
    data = StoreConfigured(store_id=store_id, **given)
    return event(data, id=f"{store_id}-{mode}-{at}-{sorted(fields)}", source="test/console", time=at)


@dataclass
class Rig:
    """A running dispatcher; `driver` moves its clock."""

    bus: Bus
    database: Database
    worker: Worker
    clock: VirtualClock
    driver: Driver
    client: httpx.AsyncClient
    metrics: Metrics

    async def publish(self, *events: Event[Any]) -> None:
        """Append these and wait until all that follows from them is done."""
        await self.append(events)
        await self.settled()

    async def append(self, events: Iterable[Event[Any]]) -> None:
        producer = self.bus.producer()
        await producer.start()
        await producer.send([to_message(one) for one in events])
        await producer.stop()

    async def settled(self) -> None:
        await self.driver.advance(timedelta(0))

    async def pass_time(self, by: timedelta) -> None:
        await self.driver.advance(by)

    async def told(self, *kinds: str) -> list[Any]:
        """What deliveries told, in order; all kinds where none is named."""
        found = [decode(record) for record in await read_topic(self.bus, DELIVERIES)]
        return [e.data for e in found if not kinds or e.type.removeprefix("notice.").removesuffix(".v1") in kinds]

    async def story(self) -> list[str]:
        """What deliveries told, in short."""
        found = [decode(record) for record in await read_topic(self.bus, DELIVERIES)]
        return [e.type.removesuffix(".v1").removeprefix("notice.") for e in found]

    async def replies(self) -> list[Any]:
        return [decode(record).data for record in await read_topic(self.bus, REPLIES)]

    async def phone(self, order_id: str | None = None) -> list[dict[str, Any]]:
        """What the demo phone shows, the oldest first."""
        found = await self.get("/v1/sandbox/messages", **({"order_id": order_id} if order_id else {}))
        return list(reversed(found["items"]))

    async def misbehave(self, behaviour: str, count: int = 1, seconds: float = 0) -> None:
        await self.post("/v1/sandbox/behaviour", behaviour=behaviour, count=count, seconds=seconds)

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, expect: int | None = None, **body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == expect if expect else answer.status_code < 300, answer.text
        return answer.json()

    async def notice(self, notice_id: str) -> Any:
        return await self.get(f"/v1/notices/{notice_id}")

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            result = await connection.execute(text(sql), values)
            return list(result) if result.returns_rows else []


@asynccontextmanager
async def at_work(
    database_url: str, *, start: datetime = NOON, settings: Settings | None = None, running: bool = True
) -> AsyncIterator[Rig]:
    """The dispatcher over the real topics of a bus of its own; stopped in order at the end."""
    clock = VirtualClock(start)
    settings = settings or Settings()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(bus_at(LOCAL, database_url, clock))
        admin = bus.admin()
        await admin.apply([replace(spec, partitions=1) for spec in TOPICS])
        await admin.close()
        database = Database(database_url)
        stack.push_async_callback(database.close)
        parts = Parts(bus, database, SEALER, clock, Metrics())
        doors = Doors(bus.producer(), Access(key_hash(KEY)))
        built = build(parts, settings, doors)
        app = create_app([built.worker], parts.metrics, [built.router])
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://dispatcher",
                headers={"Authorization": f"Bearer {KEY}"},
            )
        )
        driver = Driver(clock, [built.worker], bus, database)
        task = asyncio.create_task(built.worker.run()) if running else None
        try:
            yield Rig(bus, database, built.worker, clock, driver, client, parts.metrics)
        finally:
            built.worker.stop()
            if task is not None:
                await task


__all__ = ["BROKEN", "KEY", "NOON", "SCHEMA", "Rig", "Trouble", "at_work", "configured", "contact", "hours"]
