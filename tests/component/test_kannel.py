"""The Kannel channel with a real gateway and a phone network behind it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.dispatcher.channels.kannel import Kannel
from services.dispatcher.channels.port import Failed, Inbound, Message, Receipt, ReceiptState, Sent, Unknown
from shared.events.deliveries import Channel as Kind
from tests.support.kannel import PASSWORD, SENDER, STATUS_PASSWORD, USER, Gateway, kannel
from tests.support.processes import free_port
from tests.support.running import eventually
from tests.support.scripted import Scripted, reply, scripted
from tests.support.smpp import INVALID_DESTINATION, THROTTLED, PhoneNetwork, Receipts, Sms, phone_network

pytestmark = pytest.mark.requires("bearerbox", "smsbox")

PHONE, SECRET = "13800138000", "hook-secret-0123456789"
HOOKS = f"/v1/hooks/kannel/{SECRET}"


@dataclass
class Site:
    """A gateway between its network and our callbacks, and the channel that uses it."""

    network: PhoneNetwork
    gateway: Gateway
    callbacks: Scripted
    channel: Kannel

    async def send(self, text: str, reference: str = "ref-1", to: str = PHONE) -> Any:
        return await self.channel.send(Message(reference, "shop-1", Kind.SMS, to, text))

    async def arrived(self, count: int = 1) -> Sms:
        """The `count`-th message, once all of it is at the phone."""

        async def look() -> Sms | None:
            whole = [sms for sms in self.network.messages if sms.whole]
            return whole[count - 1] if len(whole) >= count else None

        sms: Sms = await eventually(look, "no whole message arrived")
        return sms

    def receipts(self) -> list[Receipt]:
        return [
            receipt
            for call in self.callbacks.requests
            if call.path == f"{HOOKS}/receipts"
            for receipt in self.channel.receipts(call.query, call.headers, call.body)
        ]

    def inbound(self) -> list[Inbound]:
        return [
            inbound
            for call in self.callbacks.requests
            if call.path == f"{HOOKS}/inbound"
            for inbound in self.channel.inbound(call.query, call.headers, call.body)
        ]

    async def told(self, state: ReceiptState, count: int = 1) -> list[Receipt]:
        """All receipts, once `count` say `state`."""

        async def look() -> list[Receipt]:
            found = self.receipts()
            return found if sum(receipt.state is state for receipt in found) >= count else []

        receipts: list[Receipt] = await eventually(look, f"no receipt says {state}")
        return receipts


@asynccontextmanager
async def a_site(folder: Path, *, password: str = PASSWORD, timeout: float = 10.0) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        callbacks = await stack.enter_async_context(scripted(reply(200)))
        network = await stack.enter_async_context(phone_network(free_port()))
        gateway = await stack.enter_async_context(kannel(folder, network.port, f"{callbacks.url}{HOOKS}/inbound"))
        channel = Kannel(
            gateway.url,
            username=USER,
            password=password,
            sender=SENDER,
            callback_base=callbacks.url,
            secret=SECRET,
            timeout=timeout,
            admin_url=gateway.admin_url,
            status_password=STATUS_PASSWORD,
        )
        stack.push_async_callback(channel.close)
        site = Site(network, gateway, callbacks, channel)

        async def up() -> bool:
            return network.bound and await channel.health() == ""

        await eventually(up, "the gateway did not reach its network")
        yield site


def chinese(length: int) -> str:
    """So many different characters, all of them in the basic plane."""
    return "".join(chr(0x4E00 + number) for number in range(length))


async def test_chinese_arrives_whole(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        for count, (length, parts) in enumerate([(70, 1), (71, 2), (134, 2), (135, 3), (670, 10)], 1):
            assert await site.send(chinese(length)) == Sent()
            sms = await site.arrived(count)
            assert (sms.sender, sms.to, sms.text, sms.of) == (SENDER, PHONE, chinese(length), parts)


async def test_signs_arrive_as_they_are(tmp_path: Path) -> None:
    texts = [
        "Your parcel will be 2 days late. Reply 1 to wait & 2 for a refund: 100% {sure} [€5]?",
        "第一行\n第二行：1.等；2.退 100% + A&B=C #1",
        "小店😀" * 20,
        "%d %A %% \\ \"'",
    ]
    async with a_site(tmp_path) as site:
        for count, text in enumerate(texts, 1):
            assert await site.send(text) == Sent()
            assert (await site.arrived(count)).text == text


async def test_a_receipt_comes_back_with_our_reference(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.network.receipts = Receipts.TWICE
        assert await site.send(chinese(100), "n-1_r2") == Sent()
        receipts = await site.told(ReceiptState.DELIVERED)
        assert {receipt.reference for receipt in receipts} == {"n-1_r2"}
        assert {receipt.state for receipt in receipts} <= {ReceiptState.ACCEPTED, ReceiptState.DELIVERED}
        assert all(text not in repr(receipts) for text in (PHONE, chinese(5)))


async def test_a_failed_delivery_comes_back(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.network.receipts = Receipts.FAILED
        assert await site.send("到货晚") == Sent()
        failed = [r for r in await site.told(ReceiptState.FAILED) if r.state is ReceiptState.FAILED]
        assert failed[0] == Receipt("ref-1", ReceiptState.FAILED, "UNDELIV 027")


async def test_a_late_receipt_and_one_that_the_network_refuses(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.network.receipts = Receipts.LATER
        assert await site.send("晚到的回执", "late") == Sent()
        await site.told(ReceiptState.ACCEPTED)
        assert not [r for r in site.receipts() if r.state is ReceiptState.DELIVERED]
        await site.network.release()
        await site.told(ReceiptState.DELIVERED)
        site.network.refuse = INVALID_DESTINATION
        await site.send("空号", "refused")
        failed = [r for r in await site.told(ReceiptState.FAILED) if r.state is ReceiptState.FAILED]
        assert [r.reference for r in failed] == ["refused"]


@pytest.mark.parametrize("sender", [PHONE, "+8613800138000"])
async def test_a_long_answer_comes_in_once_and_whole(tmp_path: Path, sender: str) -> None:
    async with a_site(tmp_path) as site:
        text = chinese(150) + "😀 & 100%"
        await site.network.answer(sender, SENDER, text)

        async def heard() -> list[Inbound]:
            return site.inbound()

        found = (await eventually(heard, "no answer came in"))[0]
        assert found.text == text
        assert found.sender == sender
        assert found.at is not None
        assert len(site.inbound()) == 1


async def test_a_call_that_failed_comes_again_with_the_same_id(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.callbacks.play = reply(503)
        await site.network.answer(PHONE, SENDER, "2")

        async def twice() -> list[Inbound]:
            return site.inbound() if len(site.inbound()) > 1 else []

        calls = await eventually(twice, "the gateway did not call again")
        assert {(call.id, call.text, call.sender) for call in calls} == {(calls[0].id, "2", PHONE)}


async def test_what_we_answer_is_not_sent_to_the_customer(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        body, _ = site.channel.answer()
        site.callbacks.play = reply(200, body.encode())
        await site.network.answer(PHONE, SENDER, "1")

        async def heard() -> list[Inbound]:
            return site.inbound()

        await eventually(heard, "no answer came in")
        assert await site.send("之后的一条") == Sent()
        assert (await site.arrived()).text == "之后的一条"
        assert len(site.network.messages) == 1


async def test_network_down_is_queued_and_goes_out_later(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        await site.network.stop()

        async def noticed() -> bool:
            return "routes" in await site.channel.health()

        await eventually(noticed, "the gateway did not notice that its network is down")
        assert await site.send("排队的消息") == Sent()
        assert site.network.messages == []
        await site.network.start()
        assert (await site.arrived()).text == "排队的消息"


async def test_a_busy_network_is_tried_again_by_the_gateway(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.network.refuse = THROTTLED
        assert await site.send("网络忙") == Sent()
        site.network.refuse = 0
        assert (await site.arrived()).text == "网络忙"


async def test_a_dead_gateway_is_a_failure_to_try_again(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        site.gateway.kill()
        outcome = await site.send("网关已停")
        assert isinstance(outcome, Failed)
        assert outcome.retry_after is not None
        assert not outcome.permanent
        assert not outcome.account
        assert await site.channel.health() != ""


async def test_a_wrong_password_is_the_accounts_fault(tmp_path: Path) -> None:
    async with a_site(tmp_path, password="not-the-password") as site:
        outcome = await site.send("密码错误")
        assert isinstance(outcome, Failed)
        assert outcome.account
        assert site.network.messages == []


async def test_a_silent_gateway_is_unknown(tmp_path: Path) -> None:
    """It takes the request and stops: what becomes of the message is not ours to say. It does arrive later."""
    async with a_site(tmp_path, timeout=0.5) as site:
        site.gateway.suspend()
        try:
            outcome = await site.send("无人应答")
        finally:
            site.gateway.resume()
        assert isinstance(outcome, Unknown)
        assert (await site.arrived()).text == "无人应答"


async def test_the_same_three_times_is_three_messages(tmp_path: Path) -> None:
    """Why a claim comes before each call: the gateway keeps nobody from sending twice."""
    async with a_site(tmp_path) as site:
        for _ in range(3):
            assert await site.send("同一条") == Sent()
        await site.arrived(3)


async def test_what_the_gateway_would_spoil_is_refused_before(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        for text, to in [
            (chinese(671), PHONE),
            ("", PHONE),
            ("好", "-5"),
            ("好", "1" * 40),
            ("好", f"{PHONE} 13900139000"),
            ("好", "١٣٨٠٠١٣٨٠٠٠"),
            ("好", f"{PHONE}\n"),
        ]:
            outcome = await site.send(text, to=to)
            assert isinstance(outcome, Failed)
            assert outcome.permanent
        assert site.network.messages == []
