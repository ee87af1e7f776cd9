"""What goes out, what does not, and what is told of it."""

from datetime import timedelta

from services.dispatcher.rules.wave import WINDOW
from shared.events.envelope import event
from shared.events.incidents import Hold, How
from shared.events.notices import Purpose
from shared.events.orders import OrderRefundRequested, OrderShipped
from shared.events.stores import Caps, Mode, SendingStopped, Wave, WaveReleased
from shared.settings import DispatcherSettings, Settings
from tests.component.dispatcher.rig import BROKEN, NOON, Rig, Trouble, at_work, configured, contact, hours
from tests.support.running import eventually
from tests.support.stories import PHONE, Order


async def test_a_late_order_is_told_once_by_sms_and_dm(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice(), trouble.notice())
    messages = await rig.phone()
    assert {(m["channel"], m["order_id"]) for m in messages} == {("sms", "T1"), ("dm", "T1")}
    assert {m["signature"] for m in messages} == {"雾蓝小店"}
    assert sorted(await rig.story()) == ["delivered", "delivered", "sent", "sent"]
    sent = (await rig.told("sent"))[0]
    assert sent.told_date == trouble.at + hours(72)
    shown = await rig.notice(trouble.notice_id())
    assert shown["state"] == "delivered"
    assert [a["outcome"] for a in shown["attempts"]] == ["delivered", "delivered"]
    page = rig.metrics.render().decode()
    assert 'headsup_sends_total{channel="sms",outcome="sent",service="dispatcher"} 1.0' in page
    assert 'headsup_contact_seconds_count{scenario="shipping_delay",service="dispatcher"} 1.0' in page
    # The same composed event a day later changes nothing.
    await rig.pass_time(hours(24))
    await rig.publish(trouble.notice())
    assert len(await rig.phone()) == 2


async def test_no_number_in_the_clear_is_kept_or_told(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    tables = await rig.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'dispatcher' ORDER BY 1"
    )
    for (table,) in tables:
        kept = await rig.rows(f"SELECT t::text, encode(t::text::bytea, 'escape') FROM dispatcher.{table} t")
        assert PHONE not in str(kept), table
    bodies = await rig.rows(
        "SELECT convert_from(body, 'UTF8') || convert_from(progress, 'UTF8') FROM dispatcher.notices"
    )
    assert bodies
    assert PHONE not in str(bodies)
    assert PHONE not in str(await rig.told())


async def test_a_newer_revision_supersedes_what_was_not_sent(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())
    assert await rig.story() == ["held"]
    await rig.publish(trouble.incident(2, date=96), trouble.notice(revision=2, told_date=NOON + hours(96)))
    assert sorted(await rig.story()) == ["held", "held", "suppressed"]
    [gone] = await rig.told("suppressed")
    assert (gone.reason, gone.revision) == ("superseded", 1)


async def test_a_small_move_is_not_told_and_a_large_one_is(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.publish(trouble.incident(2, date=75), trouble.notice(Purpose.UPDATE, 2, told_date=NOON + hours(75)))
    [small] = await rig.told("suppressed")
    assert small.reason == "small_move"
    assert "3.0 h" in small.detail
    await rig.publish(trouble.incident(3, date=92), trouble.notice(Purpose.UPDATE, 3, told_date=NOON + hours(92)))
    assert len(await rig.phone()) == 4


async def test_who_may_have_been_told_is_not_told_again_until_that_is_known(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured())
    await rig.misbehave("accept_then_silence", 2)
    await rig.publish(trouble.incident(), trouble.notice())
    assert len(await rig.told("unknown")) == 2
    await rig.publish(trouble.incident(2, date=73), trouble.notice(revision=2, told_date=NOON + hours(73)))
    [held] = await rig.told("held")
    assert (held.reason, held.releasable, held.revision) == ("timed_out", True, 2)
    assert len(await rig.phone()) == 2
    await rig.post(f"/v1/notices/{trouble.notice_id()}/sent")
    await rig.settled()
    assert (await rig.told("suppressed"))[0].reason == "small_move"
    assert len(await rig.phone()) == 2


async def test_an_update_the_next_day_is_no_late_start(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.pass_time(hours(24))
    await rig.publish(trouble.incident(2, date=100), trouble.notice(Purpose.UPDATE, 2, told_date=NOON + hours(100)))
    assert len(await rig.phone()) == 4


async def test_shipped_before_anyone_was_told_says_nothing(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())
    await rig.publish(trouble.resolved(), trouble.notice(Purpose.GOOD_NEWS, 2))
    assert await rig.phone() == []
    assert {(d.purpose, d.reason) for d in await rig.told("suppressed")} == {
        ("first_contact", "resolved"),
        ("good_news", "never_told"),
    }


async def test_good_news_goes_by_what_reached_them(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.publish(trouble.resolved(how=How.SHIPPED), trouble.notice(Purpose.GOOD_NEWS, 2))
    assert [m["purpose"] for m in await rig.phone()].count("good_news") == 1


async def test_the_last_look_sees_an_order_that_shipped_meanwhile(rig: Rig) -> None:
    trouble = Trouble()
    order = Order("T1")
    await rig.publish(configured(Mode.APPROVE), order.paid(), trouble.incident(), trouble.notice())
    shipped = OrderShipped(order_id="T1", carrier="sf", tracking_no="SF1", shipped_at=NOON)
    await rig.publish(event(shipped, id="s", source="shop", time=NOON))
    assert (await rig.told("suppressed"))[0].reason == "resolved"
    answer = await rig.post(f"/v1/notices/{trouble.notice_id()}/release", expect=409)
    assert "suppressed" in answer["detail"]


async def test_who_asked_first_goes_to_an_agent(rig: Rig) -> None:
    trouble = Trouble()
    asked = event(OrderRefundRequested(order_id="T1"), id="r", source="shop", time=NOON)
    await rig.publish(configured(), asked, trouble.incident(), trouble.notice())
    [held] = await rig.told("held")
    assert held.reason == "asked_first"
    assert held.releasable
    await rig.post(f"/v1/notices/{trouble.notice_id()}/release")
    await rig.settled()
    assert len(await rig.phone()) == 2


async def test_approve_then_release_then_it_goes(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())
    listed = await rig.get("/v1/notices", state="held", order_id="T1")
    [item] = listed["items"]
    assert (item["reason"], item["options"][1]["code"]) == ("approval", "refund")
    assert "T1" in item["texts"]["sms"]
    done = await rig.post("/v1/notices/release", notice_ids=[trouble.notice_id(), "nothing"])
    assert done["released"] == 1
    await rig.settled()
    assert len(await rig.phone()) == 2
    assert (await rig.story())[:2] == ["held", "released"]
    assert (await rig.told("released"))[0].by == "first key"
    again = await rig.post(f"/v1/notices/{trouble.notice_id()}/release", expect=409)
    assert "not held" in again["detail"]


async def test_a_broken_must_is_never_released(rig: Rig) -> None:
    trouble = Trouble()
    await rig.publish(configured(), trouble.incident(), trouble.notice(hold=BROKEN))
    [held] = await rig.told("held")
    assert (held.reason, held.releasable) == ("must_broken", False)
    refused = await rig.post(f"/v1/notices/{trouble.notice_id()}/release", expect=409)
    assert "no exact date" in refused["detail"]
    await rig.post(f"/v1/notices/{trouble.notice_id()}/sent")
    await rig.settled()
    assert (await rig.told("sent"))[0].by == "first key"


async def test_shadow_and_off_send_nothing(rig: Rig) -> None:
    for number, mode in enumerate((Mode.SHADOW, Mode.OFF)):
        trouble = Trouble(f"T{number}", store_id=f"shop-{number}")
        await rig.publish(configured(mode, store_id=trouble.store_id), trouble.incident(), trouble.notice())
    assert [d.reason for d in await rig.told("suppressed")] == ["shadow", "mode_off"]
    assert await rig.phone() == []


async def test_a_stop_holds_what_is_not_claimed_and_lets_go_when_lifted(rig: Rig) -> None:
    stop = event(SendingStopped(store_id="shop-1", by="t"), id="s1", source="console", time=NOON)
    first, second = Trouble("T1"), Trouble("T2")
    await rig.publish(configured(), first.incident(), first.notice())
    await rig.publish(stop)
    await rig.publish(second.incident(), second.notice())
    assert {m["order_id"] for m in await rig.phone()} == {"T1"}
    shown = await rig.notice(second.notice_id())
    assert (shown["state"], shown["reason"]) == ("waiting", "stopped")
    lift = SendingStopped(store_id="shop-1", stopped=False, by="t")
    await rig.publish(event(lift, id="s2", source="console", time=NOON + timedelta(minutes=1)))
    assert {m["order_id"] for m in await rig.phone()} == {"T1", "T2"}


async def test_a_stop_in_the_middle_of_a_batch(database: str) -> None:
    settings = Settings(dispatcher=DispatcherSettings(concurrency=1))
    troubles = [Trouble(f"T{n}") for n in range(10)]
    async with at_work(database, settings=settings) as rig:
        await rig.publish(configured())
        await rig.misbehave("delay", 100, seconds=0.3)
        await rig.append([e for t in troubles for e in (t.incident(), t.notice())])
        await eventually(rig.phone, "nothing went out")
        stop = SendingStopped(store_id="shop-1", by="t")
        await rig.append([event(stop, id="s1", source="console", time=NOON)])
        await rig.settled()
        before = await rig.phone()
        assert 0 < len(before) < 20
        await rig.pass_time(timedelta(minutes=1))
        assert len(await rig.phone()) == len(before)
        lift = SendingStopped(store_id="shop-1", stopped=False, by="t")
        await rig.publish(event(lift, id="s2", source="console", time=NOON + timedelta(minutes=1)))
        after = await rig.phone()
        assert len(after) == len({(m["order_id"], m["channel"]) for m in after}) == 20


async def test_a_stop_of_one_channel_leaves_the_other(rig: Rig) -> None:
    stop = SendingStopped(channel="sms", by="t")
    trouble = Trouble()
    await rig.publish(configured(), event(stop, id="s1", source="console", time=NOON))
    await rig.publish(trouble.incident(), trouble.notice())
    assert [m["channel"] for m in await rig.phone()] == ["dm"]
    lift = SendingStopped(channel="sms", stopped=False, by="t")
    await rig.publish(event(lift, id="s2", source="console", time=NOON + timedelta(minutes=1)))
    assert sorted(m["channel"] for m in await rig.phone()) == ["dm", "sms"]


async def test_the_ramp_holds_the_first_of_a_template(database: str) -> None:
    settings = Settings(dispatcher=DispatcherSettings(ramp_first=1, ramp_stages=[[2, 0]]))
    async with at_work(database, settings=settings) as rig:
        first, second, third, fourth = (Trouble(f"T{n}") for n in range(4))
        for trouble in (first, second):
            await rig.publish(configured(Mode.RAMP), trouble.incident(), trouble.notice())
        assert [d.reason for d in await rig.told("held")] == ["ramp", "ramp"]
        await rig.post(f"/v1/notices/{first.notice_id()}/release")
        await rig.settled()
        await rig.publish(third.incident(), third.notice())
        assert len(await rig.told("held")) == 3
        await rig.post(f"/v1/notices/{second.notice_id()}/release")
        await rig.settled()
        await rig.publish(fourth.incident(), fourth.notice())
        assert len(await rig.phone()) == 6


async def test_caps_hold_the_rest_of_the_day(rig: Rig) -> None:
    store = configured(caps=Caps(messages=4, first_days=None))
    troubles = [Trouble(f"T{n}") for n in range(4)]
    await rig.publish(store, *(t.incident() for t in troubles), *(t.notice() for t in troubles))
    assert len(await rig.phone()) == 4
    assert [d.reason for d in await rig.told("held")] == ["message_cap"] * 2


async def test_money_caps_count_what_is_newly_promised(rig: Rig) -> None:
    store = configured(caps=Caps(money="25.00", first_days=None))  # type: ignore[arg-type]
    troubles = [Trouble(f"T{n}") for n in range(3)]
    await rig.publish(store, *(t.incident() for t in troubles), *(t.notice(money_reserved="10.00") for t in troubles))
    assert [d.reason for d in await rig.told("held")] == ["money_cap"]


async def test_quiet_hours_wait_when_the_limit_allows(database: str) -> None:
    night = NOON + hours(19.5)  # 07:30 in Shanghai
    async with at_work(database, start=night) as rig:
        trouble = Trouble(at=night)
        await rig.publish(configured(at=night), trouble.incident(), trouble.notice())
        assert await rig.phone() == []
        await rig.pass_time(hours(0.6))
        assert {m["channel"] for m in await rig.phone()} == {"sms", "dm"}


async def test_quiet_hours_break_for_quiet_channels_where_the_limit_would_pass(database: str) -> None:
    night = NOON + hours(14)  # 02:00 in Shanghai
    async with at_work(database, start=night) as rig:
        trouble = Trouble(at=night)
        await rig.publish(configured(at=night), trouble.incident(), trouble.notice())
        assert [m["channel"] for m in await rig.phone()] == ["dm"]
        await rig.pass_time(hours(7))
        assert [m["channel"] for m in await rig.phone()] == ["dm", "sms"]


async def test_quiet_hours_end_too_late_for_an_order_that_shipped(database: str) -> None:
    night = NOON + hours(14)
    async with at_work(database, start=night) as rig:
        trouble = Trouble(at=night)
        await rig.publish(configured(at=night), trouble.incident(), trouble.notice())
        await rig.publish(trouble.resolved())
        await rig.pass_time(hours(7))
        assert [m["channel"] for m in await rig.phone()] == ["dm"]


async def test_a_wave_pauses_once_and_goes_on_when_released(rig: Rig) -> None:
    store = configured(wave=Wave(incidents=3, share=0.5))
    troubles = [Trouble(f"T{n}") for n in range(5)]
    await rig.publish(store, *(Order(t.order_id).paid() for t in troubles))
    for trouble in troubles:
        await rig.publish(trouble.incident(), trouble.notice())
    [paused] = [d for d in await rig.told() if hasattr(d, "wave_id")]
    assert (paused.incidents, paused.open_orders) == (3, 5)
    assert [d.reason for d in await rig.told("held")] == ["wave"] * 3
    released = WaveReleased(store_id="shop-1", wave_id=paused.wave_id, by="t")
    await rig.publish(event(released, id="w", source="console", time=NOON))
    assert len(await rig.phone()) == 10
    late = Trouble("T9")
    await rig.publish(late.incident(), late.notice())
    assert len([d for d in await rig.told() if hasattr(d, "wave_id")]) == 1
    assert hours(1) == WINDOW


async def test_a_wave_that_a_person_drops_is_not_sent(rig: Rig) -> None:
    store = configured(wave=Wave(incidents=1, share=0.1))
    trouble = Trouble()
    await rig.publish(store, Order("T1").paid(), trouble.incident(), trouble.notice())
    [paused] = [d for d in await rig.told() if hasattr(d, "wave_id")]
    dropped = WaveReleased(store_id="shop-1", wave_id=paused.wave_id, sends=False, by="t")
    await rig.publish(event(dropped, id="w", source="console", time=NOON))
    assert (await rig.told("suppressed"))[0].reason == "rejected"


async def test_feeds_that_are_silent_and_late_starts_wait_for_a_person(rig: Rig) -> None:
    stale, late = Trouble("T1"), Trouble("T2", at=NOON - hours(3))
    await rig.publish(
        configured(), stale.incident(hold=Hold.FEED_STALE), stale.notice(), late.incident(), late.notice()
    )
    assert sorted(d.reason for d in await rig.told("held")) == ["feed_stale", "late_start"]


async def test_an_important_order_also_gets_a_call_within_the_cap(rig: Rig) -> None:
    store = configured(important={"calls_a_day": 1})
    troubles = [Trouble(f"T{n}") for n in range(2)]
    await rig.publish(store, *(t.incident() for t in troubles), *(t.notice(important=True) for t in troubles))
    calls = [kind for kind in await rig.story() if kind == "call.requested"]
    assert len(calls) == 1


async def test_numbers_abroad_and_nonsense_are_never_written_to(rig: Rig) -> None:
    abroad = Trouble("T1")
    abroad.contacts = (contact("+88213300000"),)
    nonsense = Trouble("T2")
    nonsense.contacts = (contact("12"),)
    await rig.publish(configured(), *(t.incident() for t in (abroad, nonsense)))
    await rig.publish(
        abroad.notice(texts={"sms": "x"}),
        nonsense.notice(texts={"sms": "x"}),
    )
    assert await rig.phone() == []
    failed = {d.order_id: (d.reason, d.final) for d in await rig.told("failed")}
    assert failed == {"T1": ("country", True), "T2": ("bad_address", True)}
