"""The world around the four services: an SMS gateway and a chat bridge that count what they accept, a customer who
answers, an order system that does as it is asked, and the people's view of it all, read from the database."""

import asyncio
import base64
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
from sqlalchemy import text

from services.cli import SERVICES
from shared.bus import connect
from shared.bus.port import Bus
from shared.events.cases import RemedyRequested
from shared.events.contacts import Recipient, RecipientKind
from shared.events.envelope import Event, decode, event, to_message
from shared.events.incidents import Scenario
from shared.events.orders import Customer, Line, OrderPaid, OrderShipEstimated, RemedyCompleted
from shared.events.stores import Mode, StoreConfigured
from shared.events.topics import REMEDIES, TOPICS
from shared.store.database import Database
from tests.faults import loop_member
from tests.faults.loop_member import Spec
from tests.support.processes import LOOPBACK, free_port
from tests.support.running import eventually, read_topic
from tests.support.scripted import Play, Request, Scripted, reply

PHONE: Final = "13977745612"
CHAT: Final = "tb-kirschbluete-77"
NICKNAME: Final = "小鱼"
STORE: Final = "shop-1"
SERVICE_NAMES: Final = tuple(one.name for one in SERVICES)
LEASE_SECONDS: Final = 1.0
DUE_HOURS: Final = (15 * 60 + 15) / 3600
"""An unknown send is a person's 15 minutes before the contact is due: here 15 seconds after the trouble is noticed."""

Life = tuple[str, int]
"""The point at which a process dies, and at which pass of it."""


@dataclass(frozen=True)
class Accepted:
    reference: str
    channel: str
    text: str


class Providers(Scripted):
    """Both of them. While `gate` is closed they accept and do not answer. Receipts of SMS are told to us until we take
    them."""

    def __init__(self, secret: str) -> None:
        super().__init__(reply(200))
        self.accepted: list[Accepted] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.hooks = ""
        self._secret = secret
        self._telling: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Play:
        if request.path == "/cgi-bin/sendsms":
            callback = httpx.URL(request.query["dlr-url"])
            message = Accepted(callback.params["id"], "sms", request.query["text"])
            answer = reply(202, b"0: Accepted for delivery")
        else:
            letter = json.loads(request.body)
            message = Accepted(letter["reference"], letter["kind"], letter["text"])
            answer = reply(200, b'{"id": "b-1"}')
        self.accepted.append(message)
        await self.gate.wait()
        if message.channel == "sms":
            self._later(self.call("receipts", id=message.reference, type="1", answer="stat:DELIVRD"))
        return answer

    async def call(self, what: str, **query: str) -> None:
        """As the gateway does: again until it is taken."""
        async with httpx.AsyncClient(timeout=5) as client:
            while True:
                with suppress(httpx.TransportError):
                    answer = await client.get(f"{self.hooks}/kannel/{self._secret}/{what}", params=query)
                    if answer.status_code == 200:
                        return
                await asyncio.sleep(0.05)

    def _later(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def end(self) -> None:
        for task in self._telling:
            task.cancel()
        await super().end()


@dataclass
class Victim:
    """A service whose process is started again whenever it dies, each life with the next of the traps; the last one
    holds for all that follow."""

    spec: Spec
    traps: Sequence[Life]
    deaths: list[int] = field(default_factory=list)
    process: Any = None

    def start(self) -> None:
        point, nth = self.traps[min(len(self.deaths), len(self.traps) - 1)] if self.traps else ("", 1)
        self.process = loop_member.start(replace(self.spec, point=point, nth=nth))

    async def watch(self) -> None:
        while True:
            if not self.process.is_alive():
                self.deaths.append(self.process.exitcode)
                self.start()
            await asyncio.sleep(0.02)


@dataclass
class Town:
    providers: Providers
    services: dict[str, Victim]
    bus: Bus
    database: Database
    folder: Path
    urls: dict[str, str]
    nickname: str
    secrets: Sequence[str] = field(repr=False)

    # ---- what happens

    async def publish(self, *events: Event[Any]) -> None:
        producer = self.bus.producer()
        await producer.start()
        await producer.send([to_message(one) for one in events])
        await producer.stop()

    async def store(self, **fields: Any) -> None:
        data = StoreConfigured(
            store_id=STORE,
            name="雾蓝小店",
            modes={Scenario.SHIPPING_DELAY: Mode.LIVE},
            quiet_hours=None,
            by="test",
            **fields,
        )
        await self.publish(event(data, id=f"store-{STORE}", source="test/console", time=datetime.now(UTC)))

    async def late(self, order_id: str) -> None:
        """An order whose warehouse says that it will leave two days after its promise."""
        now = datetime.now(UTC)
        recipients = (
            Recipient(kind=RecipientKind.PHONE, value=PHONE),
            Recipient(kind=RecipientKind.CHAT_ID, value=CHAT),
        )
        paid = OrderPaid(
            order_id=order_id,
            store_id=STORE,
            customer=Customer(id=f"c-{order_id}", nickname=self.nickname, recipients=recipients),
            lines=(Line(sku="S", name="羊绒围巾", variant="雾蓝", quantity=1, unit_price="129.00"),),  # type: ignore[arg-type]
            total="129.00",  # type: ignore[arg-type]
            currency="CNY",
            paid_at=now,
            promise_ship_by=now + timedelta(hours=48),
        )
        estimate = OrderShipEstimated(order_id=order_id, ship_at=now + timedelta(hours=96), cause="warehouse_backlog")
        source = "test/shop"
        await self.publish(
            event(paid, id=f"{order_id}-paid", source=source, time=now),
            event(estimate, id=f"{order_id}-estimate", source=source, time=now),
        )

    async def answered(self, words: str, id: str) -> None:
        """By SMS, and once more as gateways do (case 24)."""
        for _ in range(2):
            await self.providers.call("inbound", **{"from": f"+86{PHONE}", "text": words, "id": id})

    async def live_through(self, order_id: str) -> str:
        """The order's story to its end: `closed`, or `person` where what became of its messages is not known and a
        person has been asked."""
        await self.late(order_id)
        await eventually(lambda: self._told_or_lost(order_id), "nothing was sent")
        if await self._unknown(order_id):
            await eventually(lambda: self.tasks(order_id, "unknown_send"), "nobody was asked about an unknown send")
            return "person"
        await self.answered("2", f"in-{order_id}")
        asked = await eventually(lambda: self.remedies(order_id), "no remedy was asked for")
        now = datetime.now(UTC)
        done = RemedyCompleted(remedy_id=asked[0].remedy_id, order_id=order_id, at=now)
        await self.publish(event(done, id=f"done-{order_id}", source="test/shop", time=now))
        await eventually(lambda: self._ended(order_id), "the case hangs")
        return "closed"

    # ---- what is seen

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            return list(await connection.execute(text(sql), values))

    async def remedies(self, order_id: str) -> list[Any]:
        """What the order system was asked for; the same request twice is one."""
        found = {}
        for record in await read_topic(self.bus, REMEDIES):
            one: Event[Any] = decode(record)
            if isinstance(one.data, RemedyRequested) and one.data.order_id == order_id:
                found[one.id] = one.data
        return list(found.values())

    async def tasks(self, order_id: str, kind: str) -> list[Any]:
        return await self.rows(
            "SELECT t.created_at, c.contact_due_at FROM followup.tasks t JOIN followup.task_members m USING (task_id)"
            " JOIN followup.cases c ON c.case_id = m.case_id WHERE c.order_id = :order AND t.kind = :kind",
            order=order_id,
            kind=kind,
        )

    async def attempts(self, order_id: str) -> list[Any]:
        return await self.rows(
            "SELECT a.reference, a.state, a.step, n.purpose FROM dispatcher.attempts a"
            " JOIN dispatcher.notices n USING (notice_id) WHERE n.order_id = :order",
            order=order_id,
        )

    async def _told_or_lost(self, order_id: str) -> bool:
        """Each message of the first contact has been handed over, or will never be."""
        found = [one.state for one in await self.attempts(order_id) if one.purpose == "first_contact"]
        return len(found) >= 2 and "claimed" not in found

    async def _unknown(self, order_id: str) -> bool:
        return all(one.state == "unknown" for one in await self.attempts(order_id))

    async def _ended(self, order_id: str) -> bool:
        return bool(
            await self.rows(
                "SELECT 1 FROM followup.cases WHERE order_id = :order AND state = 'closed' AND NOT EXISTS"
                " (SELECT FROM dispatcher.attempts a JOIN dispatcher.notices n USING (notice_id)"
                " WHERE n.order_id = :order AND a.state = 'claimed')",
                order=order_id,
            )
        )

    # ---- what must hold

    async def as_it_should_be(self, order_id: str) -> None:
        """Invariant B and what follows from it."""
        repeated = {r: n for r, n in Counter(one.reference for one in self.providers.accepted).items() if n > 1}
        assert not repeated, "a provider accepted the same message twice"
        attempts = await self.attempts(order_id)
        claimed = {one.reference for one in await self.rows("SELECT reference FROM dispatcher.attempts")}
        assert {one.reference for one in self.providers.accepted} <= claimed, "a message went out without a claim"
        steps = Counter((one.purpose, one.step) for one in attempts)
        assert set(steps.values()) == {1}, "one step was sent to two"
        lost = [one for one in attempts if one.state == "unknown" and one.purpose == "first_contact"]
        if lost and not await self._ended(order_id):
            tasks = await self.tasks(order_id, "unknown_send")
            assert tasks
            assert all(task.created_at < task.contact_due_at for task in tasks)
        assert len(await self.remedies(order_id)) <= 1

    def log(self) -> str:
        return loop_member.output(self.folder)


@asynccontextmanager
async def a_town(
    bus_url: str,
    database_url: str,
    folder: Path,
    traps: Mapping[str, Sequence[Life]] = MappingProxyType({}),
    *,
    nickname: str = NICKNAME,
    patience: float = 2,
) -> AsyncIterator[Town]:
    """All four services at work in processes of their own; those in `traps` die and come back. Killed at the end.
    Nobody waits longer than `patience` (seconds) for a provider."""
    hook_secret = secrets.token_hex(16)
    providers = Providers(hook_secret)
    listening = await asyncio.start_server(providers.serve, LOOPBACK, 0)
    port = listening.sockets[0].getsockname()[1]
    ports = {name: free_port() for name in SERVICE_NAMES}
    urls = {name: f"http://{LOOPBACK}:{one}" for name, one in ports.items()}
    providers.hooks = f"{urls['dispatcher']}/v1/hooks"
    settings: dict[str, Any] = {
        "bus": bus_url,
        "database": database_url.replace("+asyncpg", ""),
        "secret": base64.b64encode(b"0123456789abcdef0123456789abcdef").decode(),
        "api_key": secrets.token_hex(16),
        "log_level": "DEBUG",
        "detector": {"contact_within_hours": DUE_HOURS},
        "dispatcher": {"lease_seconds": LEASE_SECONDS, "backoff_first_seconds": 0.2},
        "kannel": {
            "url": f"http://{LOOPBACK}:{port}",
            "username": "headsup",
            "password": secrets.token_hex(8),
            "sender": "10690001",
            "callback_base": urls["dispatcher"],
            "hook_secret": hook_secret,
            "timeout_seconds": patience,
        },
        "bridge": {
            "url": f"http://{LOOPBACK}:{port}/bridge",
            "secret": base64.b64encode(secrets.token_bytes(32)).decode(),
            "hook_secret": hook_secret,
            "allowed_hosts": [LOOPBACK],
            "timeout_seconds": patience,
        },
    }
    database = Database(database_url, pool_size=6)
    bus = connect(bus_url, database.engine)
    admin = bus.admin()
    await admin.apply([replace(spec, partitions=1) for spec in TOPICS])
    await admin.close()
    services = {
        name: Victim(Spec(name, {**settings, "port": ports[name]}, str(folder / f"{name}.log")), traps.get(name, ()))
        for name in SERVICE_NAMES
    }
    kannel, bridge = settings["kannel"], settings["bridge"]
    hidden = (settings["secret"], settings["api_key"], kannel["password"], hook_secret, bridge["secret"])
    town = Town(providers, services, bus, database, folder, urls, nickname, hidden)
    await town.store()
    for one in services.values():
        one.start()
    watching = [asyncio.create_task(one.watch()) for one in services.values()]
    try:
        yield town
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for one in services.values():
            one.process.kill()
            one.process.join()
        await providers.end()
        listening.close()
        await bus.close()
        await database.close()
