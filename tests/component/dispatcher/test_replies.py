"""What customers write back, and providers' hooks."""

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.dispatcher.__main__ import providers, wired
from services.dispatcher.api import Provider
from services.dispatcher.channels.port import Inbound, Receipt, ReceiptState
from shared.access import Access, key_hash
from shared.errors import Reject
from shared.events.cases import ChoiceMade
from shared.events.envelope import event
from shared.events.notices import Option, Purpose, RemedyKind
from shared.events.replies import ReplyReceived
from shared.http import create_app
from shared.process import Doors, Parts
from shared.settings import Settings
from tests.component.dispatcher.rig import KEY, NOON, Rig, Trouble, configured, hours
from tests.support.running import SEALER
from tests.support.stories import PHONE


def options(first: int) -> tuple[Option, ...]:
    return (
        Option(number=first, code=RemedyKind.WAIT, label="等", promise="等"),
        Option(number=first + 1, code=RemedyKind.REFUND, label="退款", promise="退款"),
    )


async def test_an_answer_by_phone_finds_the_notice_whose_digit_it_names(rig: Rig) -> None:
    first, second = Trouble("T1"), Trouble("T2")
    await rig.publish(configured(), first.incident(), first.notice())
    await rig.publish(second.incident(), second.notice(options=options(3)))
    for text, phone in (("2", PHONE), ("方案四", f"+86{PHONE}"), ("①", f"86{PHONE}")):
        await rig.post("/v1/sandbox/replies", phone=phone, text=text)
    await rig.settled()
    found = {r.text: (r.order_id, r.incident_ids[0]) for r in await rig.replies()}
    assert found == {
        "2": ("T1", first.incident_id),
        "方案四": ("T2", second.incident_id),
        "①": ("T1", first.incident_id),
    }
    assert all(len(r.incident_ids) == 2 for r in await rig.replies())


async def test_an_answer_in_a_thread_belongs_to_its_message(rig: Rig) -> None:
    trouble, other = Trouble("T1"), Trouble("T2")
    await rig.publish(configured(), trouble.incident(), trouble.notice(), other.incident(), other.notice())
    message = next(m for m in await rig.phone("T1") if m["channel"] == "dm")
    await rig.post("/v1/sandbox/replies", message_id=message["message_id"], text="等等看")
    await rig.settled()
    [reply] = await rig.replies()
    assert (reply.order_id, reply.notice_id, reply.channel) == ("T1", trouble.notice_id(), "dm")


async def test_nobody_knows_an_unknown_number_and_no_number_stays_in_a_text(rig: Rig) -> None:
    await rig.post("/v1/sandbox/replies", phone="13900001111", text="打我电话 139 0000 2222 谢谢")
    await rig.settled()
    [reply] = await rig.replies()
    assert (reply.order_id, reply.incident_ids) == (None, ())
    assert reply.text == "打我电话 …2222 谢谢"


async def test_opting_out_ends_messages_and_is_still_a_reply(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.post("/v1/sandbox/replies", phone=PHONE, text="TD。")
    await rig.settled()
    assert len(await rig.replies()) == 1
    [out] = [d for d in await rig.told() if type(d).__name__ == "ContactOptedOut"]
    assert (out.store_id, out.lookup) == ("shop-1", SEALER.lookup("phone", PHONE))
    later = Trouble("T2")
    await rig.publish(later.incident(), later.notice())
    assert (await rig.told("suppressed"))[0].reason == "opted_out"
    listed = (await rig.get("/v1/opt-outs"))["items"]
    assert PHONE not in str(listed)
    for item in listed:
        answer = await rig.client.delete(f"/v1/opt-outs/shop-1/{item['lookup']}")
        assert answer.status_code == 204
    last = Trouble("T3")
    await rig.publish(last.incident(), last.notice())
    assert len(await rig.phone("T3")) == 2


async def test_opting_out_by_a_reply_that_an_agent_typed_in(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    typed = ReplyReceived(
        reply_id="r-1",
        order_id="T1",
        store_id="shop-1",
        incident_ids=(trouble.incident_id,),
        channel="rest",
        text="不要再给我发短信了",
        received_at=NOON,
        by="chen",
    )
    for identity in ("r-1", "r-2"):
        await rig.publish(event(typed, id=identity, source="headsup/followup", time=NOON))
    [out] = [d for d in await rig.told() if type(d).__name__ == "ContactOptedOut"]
    assert (out.store_id, out.lookup) == ("shop-1", SEALER.lookup("phone", PHONE))
    await rig.publish(trouble.notice(Purpose.REMINDER, notice_id="reminder-1", request_id="q"))
    later = Trouble("T2")
    await rig.publish(later.incident(), later.notice())
    assert {d.order_id: d.reason for d in await rig.told("suppressed")}["T2"] == "opted_out"
    assert len(await rig.phone()) == 2


async def test_opting_out_while_it_waits(rig: Rig) -> None:
    from shared.events.stores import Mode

    trouble = Trouble()
    await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())
    await rig.post("/v1/opt-outs", store_id="shop-1", phone=PHONE)
    await rig.post(f"/v1/notices/{trouble.notice_id()}/release")
    await rig.settled()
    assert (await rig.told("suppressed"))[0].reason == "opted_out"


async def test_a_reminder_is_not_sent_to_who_has_answered(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    choice = ChoiceMade(
        case_id=trouble.incident_id,
        incident_id=trouble.incident_id,
        store_id="shop-1",
        order_id="T1",
        scenario="shipping_delay",  # type: ignore[arg-type]
        at=NOON,
        notice_id=trouble.notice_id(),
        number=1,
        code=RemedyKind.WAIT,
        currency="CNY",
    )
    await rig.publish(event(choice, id="c", source="followup", time=NOON))
    await rig.pass_time(hours(24))
    await rig.publish(trouble.notice(Purpose.REMINDER, notice_id="reminder-1", request_id="q"))
    assert (await rig.told("suppressed"))[0].reason == "answered"


class Echo:
    """Hooks of a made-up provider, whose receipts are `?ref=&state=` and whose messages are `?id=&from=&text=`."""

    def receipts(self, query: Any, headers: Any, body: bytes) -> list[Receipt]:
        if "ref" not in query:
            raise Reject("There is no reference.", "ref")
        return [Receipt(query["ref"], ReceiptState(query["state"]))]

    def inbound(self, query: Any, headers: Any, body: bytes) -> list[Inbound]:
        if query.get("signature") == "forged":
            raise PermissionError
        return [Inbound(query["id"], query["text"], sender=query["from"])]

    def answer(self) -> tuple[str, str]:
        return '{"code":0}', "application/json"


@pytest.fixture
async def hooked(rig: Rig) -> httpx.AsyncClient:
    parts = Parts(rig.bus, rig.database, SEALER, rig.clock, rig.metrics)
    chosen = providers(parts, Settings())
    name, sandbox = next(iter(chosen.items()))
    chosen[name] = Provider(sandbox.channel, Echo(), SecretStr("s3cret"))
    built = wired(parts, Settings(), Doors(rig.bus.producer(), Access(key_hash(KEY))), chosen)
    app = create_app([built.worker], rig.metrics, [built.router])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hooks")


async def test_hooks_open_by_their_secret_only_and_dedupe(rig: Rig, hooked: httpx.AsyncClient) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    path = "/v1/hooks/sandbox-sms/s3cret"
    query = {"id": "m-1", "from": PHONE, "text": "1"}
    for wrong in ("/v1/hooks/sandbox-sms/wrong", "/v1/hooks/nobody/s3cret", "/v1/hooks/sandbox-dm/s3cret"):
        assert (await hooked.get(f"{wrong}/inbound", params=query)).status_code == 404
    assert (await hooked.get(f"{path}/inbound", params={**query, "signature": "forged"})).status_code == 401
    assert (await hooked.post(f"{path}/receipts")).status_code == 422
    for method in ("GET", "POST"):
        answer = await hooked.request(method, f"{path}/inbound", params=query)
        assert (answer.status_code, answer.text) == (200, '{"code":0}')
    assert (await hooked.get(f"{path}/receipts", params={"ref": "x", "state": "delivered"})).status_code == 200
    await rig.settled()
    assert [r.text for r in await rig.replies()] == ["1"]


async def test_keys_of_one_store_see_and_touch_no_other(rig: Rig) -> None:
    from shared.events.stores import KeySet, Mode, Role
    from shared.store.stores import StoredKeys

    trouble = Trouble()
    key = KeySet(name="other", sha256=key_hash("other-key-0123456"), role=Role.OPERATOR, stores=("shop-2",))
    await rig.publish(
        configured(Mode.APPROVE), event(key, id="k", source="console", time=NOON), trouble.incident(), trouble.notice()
    )
    parts = Parts(rig.bus, rig.database, SEALER, rig.clock, rig.metrics)
    access = Access(key_hash(KEY), StoredKeys(rig.database, "dispatcher"))
    built = wired(parts, Settings(), Doors(rig.bus.producer(), access), providers(parts, Settings()))
    app = create_app([built.worker], rig.metrics, [built.router])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://other",
        headers={"Authorization": "Bearer other-key-0123456"},
    ) as client:
        assert (await client.get("/v1/notices")).json()["items"] == []
        assert (await client.get(f"/v1/notices/{trouble.notice_id()}")).status_code == 403
        assert (await client.post(f"/v1/notices/{trouble.notice_id()}/release")).status_code == 403
        assert (await client.get(f"/v1/notices/{'0' * 36}")).status_code == 404
        assert (await client.get("/v1/waves")).json()["items"] == []
        for path, body in (
            ("channels/sandbox-sms/resume", {}),
            ("sandbox/behaviour", {"behaviour": "delay"}),
            ("sandbox/replies", {"phone": PHONE, "text": "2"}),
        ):
            assert (await client.post(f"/v1/{path}", json=body)).status_code == 403
