"""Kafka mode: four processes on a real broker, database and SMS gateway, with a phone network and a chat bridge."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from shared.events.topics import TOPICS
from tests.component.cli.conftest import cli
from tests.component.cli.support import PHONE, Cli, Process
from tests.support.bridge import SECRET, Bridge, a_bridge
from tests.support.kafka import KafkaServer
from tests.support.kannel import PASSWORD, SENDER, STATUS_PASSWORD, USER, kannel
from tests.support.processes import LOOPBACK, free_port
from tests.support.running import eventually
from tests.support.smpp import PhoneNetwork, Sms, phone_network

__all__ = ["cli"]

pytestmark = pytest.mark.requires("bearerbox", "smsbox")

SERVICES = ("detector", "composer", "dispatcher", "followup")
KEY, HOOK_SECRET = "an-acceptance-key", "hook-secret-0123456789"
ORDER, CHAT_ID = "K-20261112-0001", "tb-xiaoyu-7788"


@dataclass
class Shop:
    """The whole installation, and the world around it."""

    cli: Cli
    settings: dict[str, str]
    bootstrap: str
    urls: dict[str, str]
    processes: dict[str, Process]
    network: PhoneNetwork
    bridge: Bridge
    http: httpx.AsyncClient

    async def get(self, service: str, path: str) -> Any:
        answer = await self.http.get(self.urls[service] + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tell(self, kind: str, **data: Any) -> None:
        """An order system's event, by REST."""
        now = datetime.now(UTC).isoformat()
        body = {"specversion": "1.0", "id": f"{kind}/{ORDER}", "source": "/shop", "type": kind, "time": now}
        answer = await self.http.post(f"{self.urls['detector']}/v1/events", json={**body, "data": data})
        assert answer.json()["accepted"] == 1, answer.text

    async def command(self, *arguments: str) -> Any:
        """What a `headsup` command says. Beside the loop: the phone network lives on it."""
        return await asyncio.to_thread(self.cli.json, *arguments, **self.settings)

    async def caught_up(self) -> bool:
        return all(row["lag"] == 0 for row in await self.command("lag"))

    async def notice(self, purpose: str, done: Callable[[Any], bool]) -> Any:
        """This order's notice of that purpose, once it is `done`."""

        async def look() -> Any:
            listed = (await self.get("dispatcher", f"/v1/notices?order_id={ORDER}&purpose={purpose}"))["items"]
            found = [await self.get("dispatcher", f"/v1/notices/{one['notice_id']}") for one in listed]
            return next(filter(done, found), None)

        return await eventually(look, f"no {purpose} was done")

    async def case(self, done: Callable[[Any], bool]) -> Any:
        async def look() -> Any:
            [listed] = (await self.get("followup", f"/v1/cases?order_id={ORDER}"))["items"]
            case = await self.get("followup", f"/v1/cases/{listed['case_id']}")
            return case if done(case) else None

        return await eventually(look, "the case did not come so far")

    async def sms(self, count: int) -> Sms:
        """The `count`-th message at the customer's phone, once all of it is there."""

        async def look() -> Sms | None:
            whole = [sms for sms in self.network.messages if sms.whole]
            return whole[count - 1] if len(whole) >= count else None

        sms: Sms = await eventually(look, f"SMS {count} did not arrive")
        return sms

    async def letter(self, count: int) -> dict[str, Any]:
        """The `count`-th message in the customer's chat."""

        async def look() -> dict[str, Any] | None:
            letters = self.bridge.letters()
            return letters[count - 1] if len(letters) >= count else None

        letter: dict[str, Any] = await eventually(look, f"letter {count} did not arrive")
        return letter

    async def said(self, kind: str) -> Any:
        """The one event of this type on Kafka."""

        async def look() -> list[Any]:
            records = await everything(self.bootstrap)
            return [json.loads(r.value) for r in records if dict(r.headers).get("ce_type") == kind.encode()]

        [body] = await eventually(look, f"no {kind} was written")
        return body


async def everything(bootstrap: str) -> list[ConsumerRecord]:
    """Every record on every topic of ours, up to now."""
    names = [topic.name for topic in TOPICS]
    consumer = AIOKafkaConsumer(*names, bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[ConsumerRecord] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += batch
        return found
    finally:
        await consumer.stop()


@pytest.fixture
def settings(own_kafka: KafkaServer, empty_database: str) -> dict[str, str]:
    """Of all processes; a broker of its own, for the topics are read whole."""
    return {
        "HEADSUP_BUS": f"kafka://{own_kafka.bootstrap}",
        "HEADSUP_DATABASE": empty_database.replace("+asyncpg", ""),
        "HEADSUP_SECRET": base64.b64encode(os.urandom(32)).decode(),
        "HEADSUP_API_KEY": KEY,
        "HEADSUP_TOPICS__PARTITIONS": "2",
        "HEADSUP_LOG_FORMAT": "json",
        "HEADSUP_LOG_LEVEL": "DEBUG",
    }


@asynccontextmanager
async def open_shop(cli: Cli, settings: dict[str, str], bootstrap: str, folder: Path) -> AsyncIterator[Shop]:
    """All of it at work; all of it ended at the end."""
    ports = {name: free_port() for name in SERVICES}
    urls = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    hooks = f"{urls['dispatcher']}/v1/hooks"
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(phone_network(free_port()))
        inbound = f"{hooks}/kannel/{HOOK_SECRET}/inbound"
        gateway = await stack.enter_async_context(kannel(folder, network.port, inbound))
        bridge = await stack.enter_async_context(a_bridge(f"{hooks}/bridge/{HOOK_SECRET}"))
        settings = {
            **settings,
            "HEADSUP_KANNEL__URL": gateway.url,
            "HEADSUP_KANNEL__USERNAME": USER,
            "HEADSUP_KANNEL__PASSWORD": PASSWORD,
            "HEADSUP_KANNEL__SENDER": SENDER,
            "HEADSUP_KANNEL__CALLBACK_BASE": urls["dispatcher"],
            "HEADSUP_KANNEL__HOOK_SECRET": HOOK_SECRET,
            "HEADSUP_KANNEL__ADMIN_URL": gateway.admin_url,
            "HEADSUP_KANNEL__STATUS_PASSWORD": STATUS_PASSWORD,
            "HEADSUP_BRIDGE__URL": bridge.url,
            "HEADSUP_BRIDGE__SECRET": SECRET,
            "HEADSUP_BRIDGE__HOOK_SECRET": HOOK_SECRET,
            "HEADSUP_BRIDGE__ALLOWED_HOSTS": json.dumps([LOOPBACK]),
        }
        for command in (("db", "migrate"), ("topics", "apply")):
            done = await asyncio.to_thread(cli, *command, **settings)
            assert done.returncode == 0, done.stderr
        processes = {}
        for name, port in ports.items():
            log = folder / f"{name}.log"
            processes[name] = Process(cli, log, "run", name, "--port", str(port), **settings)
            stack.callback(processes[name].end)
        http = await stack.enter_async_context(
            httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        )
        shop = Shop(cli, settings, bootstrap, urls, processes, network, bridge, http)

        async def ready() -> bool:
            try:
                answers = [await http.get(f"{url}/readyz") for url in urls.values()]
            except httpx.TransportError:
                return False
            return network.bound and all(answer.status_code == 200 for answer in answers)

        await eventually(ready, "a service did not become ready")
        yield shop


async def goes_live(shop: Shop) -> None:
    """The store is switched on, and every service knows."""
    store = {"name": "小鱼家", "modes": {"shipping_delay": "live"}, "quiet_hours": None}
    answer = await shop.http.put(f"{shop.urls['composer']}/v1/stores/shop-1", json=store)
    assert answer.status_code == 200, answer.text
    await eventually(shop.caught_up, "a service did not read the store's settings")


async def is_late(shop: Shop) -> None:
    """Paid an hour ago, promised for tomorrow; now the warehouse says that it takes three days more."""
    now = datetime.now(UTC)
    scarf = {
        "line_id": "L1",
        "sku": "SCARF-BLUE",
        "name": "内蒙古羊绒加厚围巾",
        "short_name": "羊绒围巾",
        "variant": "雾蓝",
        "quantity": 1,
        "unit_price": "129.00",
    }
    chat = {"kind": "chat_id", "value": CHAT_ID}
    await shop.tell(
        "order.paid.v1",
        order_id=ORDER,
        store_id="shop-1",
        customer={"id": "c-7", "nickname": "小鱼", "phone": PHONE, "recipients": [chat]},
        lines=[scarf],
        total="129.00",
        currency="CNY",
        paid_at=(now - timedelta(hours=1)).isoformat(),
        promise_ship_by=(now + timedelta(hours=24)).isoformat(),
    )
    ship_at = (now + timedelta(hours=96)).isoformat()
    await shop.tell("order.ship_estimated.v1", order_id=ORDER, ship_at=ship_at, cause="warehouse_backlog")


def by_sms(notice: Any) -> Any:
    """Where its SMS stands."""
    return next((step["state"] for step in notice["steps"] if step["channel"] == "sms"), None)


async def test_late_told_answered_refunded_and_closed(
    cli: Cli, own_kafka: KafkaServer, settings: dict[str, str], tmp_path: Path
) -> None:
    async with open_shop(cli, settings, own_kafka.bootstrap, tmp_path) as shop:
        await goes_live(shop)
        await is_late(shop)

        sms, dm = await shop.sms(1), await shop.letter(1)
        first = await shop.notice("first_contact", lambda notice: by_sms(notice) == "delivered")
        assert first["state"] == "delivered"
        assert [option["code"] for option in first["options"]] == ["wait", "refund"]
        assert sms.to.removeprefix("+") == f"86{PHONE}"
        assert sms.of > 1
        assert sms.text == first["texts"]["sms"]
        assert (dm["to"], dm["kind"], dm["text"]) == (CHAT_ID, "dm", first["texts"]["dm"])
        await shop.bridge.delivered(dm)

        await shop.network.answer(sms.to, SENDER, "2")
        asked = await shop.said("remedy.requested.v1")
        assert (asked["order_id"], asked["kind"], asked["amount"]) == (ORDER, "refund", "129.00")
        heard = await shop.said("reply.received.v1")
        assert (heard["notice_id"], heard["provider"]) == (first["notice_id"], "kannel")
        next_step = await shop.notice("next_step", lambda notice: by_sms(notice) == "delivered")
        assert (await shop.sms(2)).text == next_step["texts"]["sms"]

        now = datetime.now(UTC).isoformat()
        await shop.tell("remedy.completed.v1", remedy_id=asked["remedy_id"], order_id=ORDER, at=now)
        question = await shop.letter(2)
        assert (question["to"], question["kind"]) == (CHAT_ID, "dm")
        closed = await shop.case(lambda case: case["state"] == "closed")
        assert closed["choice"] == "refund"
        assert {promise["kind"]: promise["state"] for promise in closed["promises"]}["refund"] == "kept"
        await shop.bridge.answer(question, "5")
        scored = await shop.case(lambda case: case["score"] is not None)
        assert scored["score"] == 5
        assert scored["tasks"] == []

        await eventually(shop.caught_up, "a service did not read to the end")
        assert await shop.command("dead-letters", "list") == []
        assert [sms.text for sms in shop.network.messages] == [first["texts"]["sms"], next_step["texts"]["sms"]]
        assert [letter["reference"] for letter in shop.bridge.letters()] == [dm["reference"], question["reference"]]
        await nothing_in_the_clear(shop)


async def nothing_in_the_clear(shop: Shop) -> None:
    """Neither the phone nor the chat account stands on a topic or in what a process has written, to its end."""
    records = await everything(shop.bootstrap)
    assert records
    told = [bytes(part) for r in records for part in (r.key, r.value, *(value for _, value in r.headers)) if part]
    for name, process in shop.processes.items():
        assert await asyncio.to_thread(process.stop) == 0, f"{name} did not end in order"
        assert process.process.stdout is not None
        told += [process.log.read_bytes(), process.process.stdout.read()]
    for private in (PHONE, CHAT_ID):
        assert not any(private.encode() in text for text in told)
