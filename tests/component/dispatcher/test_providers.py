"""Providers that fail, time out, answer late, twice or never; processes that die; two that race."""

import asyncio
from datetime import timedelta
from typing import Any

from services.dispatcher.__main__ import SCHEMA, TOPICS
from services.dispatcher.channels.port import Failed, Receipt, ReceiptState
from services.dispatcher.channels.sandbox import DM, SMS, Sandbox
from services.dispatcher.claiming import Claiming, Policy
from services.dispatcher.inbox import Inbox
from services.dispatcher.postgres.ledger import PostgresLedger
from services.dispatcher.recording import Answered, Recording
from services.dispatcher.rules.backoff import Backoff
from shared.events.notices import Purpose
from shared.events.stores import Mode, NewStores
from shared.telemetry import Metrics
from tests.component.dispatcher.rig import NOON, Rig, Trouble, at_work, configured, hours
from tests.support.running import SEALER, eventually

PLACES = {SMS: 32, DM: 32}


def a_claiming(rig: Rig, name: str) -> Claiming:
    """A sender's claiming half, as another process would have it."""
    channels = {n: Sandbox(n, rig.database, rig.clock) for n in (SMS, DM)}
    return Claiming(
        PostgresLedger(SCHEMA, TOPICS),
        rig.database,
        SEALER,
        rig.clock,
        schema=SCHEMA,
        channels=channels,
        policy=Policy(NewStores.LIVE),
        claimed_by=name,
    )


def a_recording(rig: Rig, name: str) -> Recording:
    return Recording(
        PostgresLedger(SCHEMA, TOPICS),
        rig.database,
        rig.clock,
        Metrics().of(SCHEMA),
        schema=SCHEMA,
        backoff=Backoff(),
        claimed_by=name,
    )


def an_inbox(rig: Rig) -> Inbox:
    return Inbox(PostgresLedger(SCHEMA, TOPICS), rig.database, SEALER, rig.clock, schema=SCHEMA)


async def release_silently(rig: Rig) -> None:
    await rig.rows(
        "UPDATE dispatcher.notices SET state = 'ready', reason = NULL, look_at = :now, progress ="
        " convert_to(jsonb_set(convert_from(progress, 'UTF8')::jsonb, '{released_by}', '\"x\"')::text, 'UTF8')",
        now=NOON,
    )
    await rig.rows("UPDATE dispatcher.offsets SET applied_until = :now", now=NOON)


async def test_a_time_out_after_accepting_is_never_sent_twice(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("accept_then_timeout", 2)
    await rig.rows("UPDATE dispatcher.sandbox_messages SET receipt_due = false")
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    # The sandbox's own receipts settle it: the message had gone out.
    assert sorted(await rig.story()) == ["delivered", "delivered", "sent", "sent", "unknown", "unknown"]
    await rig.pass_time(hours(30))
    assert len(await rig.phone()) == 2


async def test_a_time_out_without_receipt_is_unknown_until_a_person_settles_it(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("timeout", 2)
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.pass_time(hours(30))
    assert await rig.story() == ["unknown", "unknown"]
    assert await rig.phone() == []
    shown = await rig.notice(trouble.notice_id())
    assert (shown["state"], shown["reason"]) == ("unknown", "timed_out")
    refused = await rig.post(f"/v1/notices/{trouble.notice_id()}/release", expect=409)
    assert "unknown" in refused["detail"]
    await rig.post(f"/v1/notices/{trouble.notice_id()}/sent")
    assert (await rig.notice(trouble.notice_id()))["state"] == "sent"
    assert await rig.rows("SELECT 1 FROM dispatcher.attempts WHERE state = 'unknown'") == []


async def test_a_provider_that_is_down_for_a_while_is_asked_again(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("fail", 4, seconds=5)
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    assert await rig.phone() == []
    channels = {c["name"]: c for c in (await rig.get("/v1/channels"))["items"]}
    assert channels[SMS]["breaker"] == "open"
    await rig.pass_time(timedelta(minutes=2))
    assert {m["channel"] for m in await rig.phone()} == {"sms", "dm"}
    assert sorted(await rig.story()) == ["delivered", "delivered", "sent", "sent"]
    shown = await rig.notice(trouble.notice_id())
    assert max(a["attempt"] for a in shown["attempts"]) >= 2
    channels = {c["name"]: c for c in (await rig.get("/v1/channels"))["items"]}
    assert channels[SMS]["breaker"] == "closed"


async def test_a_provider_that_stays_down_ends_in_failure_before_the_limit_is_long_past(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("fail", 10_000)
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.pass_time(hours(2.1))
    last = (await rig.told("failed"))[-1]
    assert (last.final, last.reason) == (True, "provider_down")
    assert (await rig.notice(trouble.notice_id()))["state"] == "failed"


async def test_what_a_provider_refuses_for_good_is_not_tried_again(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("refuse", 2)
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    await rig.pass_time(hours(3))
    assert await rig.phone() == []
    failed = await rig.told("failed")
    assert [d.final for d in failed] == [False, False, True]
    assert {d.reason for d in failed} == {"refused"}


async def test_lost_receipts_leave_it_sent(rig: Rig) -> None:
    trouble = Trouble()
    await rig.misbehave("lose_receipts", 2)
    await rig.publish(configured(), trouble.incident(), trouble.notice())
    assert (await rig.notice(trouble.notice_id()))["state"] == "sent"


async def test_a_crash_between_claim_and_outcome_is_unknown_after_the_lease(database: str) -> None:
    trouble = Trouble()
    async with at_work(database) as rig:
        await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())
    async with at_work(database, running=False) as rig:
        await release_silently(rig)
        done = await a_claiming(rig, "dead").round(PLACES, patient=True)
        assert len(done.calls) == 2
    async with at_work(database) as rig:
        await rig.settled()
        assert await rig.phone() == []
        assert (await rig.notice(trouble.notice_id()))["state"] == "claimed"
        await rig.pass_time(timedelta(seconds=61))
        unknown = await rig.told("unknown")
        assert [d.reason for d in unknown] == ["crashed", "crashed"]
        await rig.pass_time(hours(30))
        assert await rig.phone() == []


async def test_an_orderly_end_lets_the_calls_under_way_finish(database: str) -> None:
    trouble = Trouble()
    async with at_work(database) as rig:
        await rig.publish(configured())
        await rig.misbehave("delay", 2, seconds=1)
        await rig.append([trouble.incident(), trouble.notice()])
        claimed = "SELECT 1 FROM dispatcher.attempts WHERE state = 'claimed'"
        await eventually(lambda: rig.rows(claimed), "nothing was claimed")
    async with at_work(database, running=False) as rig:
        rows = await rig.rows("SELECT state FROM dispatcher.attempts")
        assert [row.state for row in rows] == ["sent", "sent"]
        assert (await rig.notice(trouble.notice_id()))["state"] in ("sent", "delivered")


async def test_two_senders_race_for_one_claim(database: str) -> None:
    troubles = [Trouble(f"T{n}") for n in range(20)]
    async with at_work(database) as rig:
        await rig.publish(configured(Mode.APPROVE), *(t.incident() for t in troubles), *(t.notice() for t in troubles))
    async with at_work(database, running=False) as rig:
        await release_silently(rig)
        senders = [a_claiming(rig, f"p{n}") for n in range(4)]
        rounds = [await asyncio.gather(*(s.round(PLACES, patient=True) for s in senders)) for _ in range(5)]
        calls = [c for some in rounds for done in some for c in done.calls]
        references = [c.message.reference for c in calls]
        assert len(references) == len(set(references)) == 40


async def test_the_ledger_refuses_a_second_claim_whatever_the_notice_says(database: str) -> None:
    trouble = Trouble()
    async with at_work(database) as rig:
        await rig.publish(configured(), trouble.incident(), trouble.notice())
    async with at_work(database, running=False) as rig:
        # A defect elsewhere: the notice looks as if nothing of it had gone out.
        await rig.rows(
            "UPDATE dispatcher.notices SET state = 'ready', is_open = true, look_at = :now, progress ="
            " convert_to('{\"came_at\": \"2026-12-12T04:00:00Z\"}', 'UTF8')",
            now=NOON,
        )
        await rig.rows("UPDATE dispatcher.incidents SET state = convert_to('{\"revision\": 1}', 'UTF8')")
        await rig.rows("UPDATE dispatcher.offsets SET applied_until = :now", now=NOON)
        done = await a_claiming(rig, "p2").round(PLACES, patient=True)
        assert done.looked == 1
        assert done.calls == []
        assert (await rig.notice(trouble.notice_id()))["state"] == "unknown"


async def claims(database: str, trouble: Trouble) -> None:
    async with at_work(database) as rig:
        await rig.publish(configured(Mode.APPROVE), trouble.incident(), trouble.notice())


async def test_a_receipt_before_the_answer_is_kept_and_twice_or_late_changes_nothing(database: str) -> None:
    trouble = Trouble()
    await claims(database, trouble)
    async with at_work(database, running=False) as rig:
        await release_silently(rig)
        done = await a_claiming(rig, "p1").round(PLACES, patient=True)
        inbox, recording = an_inbox(rig), a_recording(rig, "p1")
        by_name = {c.claim.candidate.provider: c for c in done.calls}
        early = Receipt(by_name[SMS].message.reference, ReceiptState.DELIVERED)
        await inbox.receipts(SMS, [early])
        assert (await rig.notice(trouble.notice_id()))["state"] == "claimed"
        outcomes = [Answered(c, await rig_channel(rig, c).send(c.message)) for c in done.calls]
        await recording.record(outcomes)
        await recording.record(outcomes)
        shown = await rig.notice(trouble.notice_id())
        assert {s["channel"]: s["state"] for s in shown["steps"]} == {"sms": "delivered", "dm": "sent"}
        await inbox.receipts(SMS, [early, early])
        late = Receipt(by_name[DM].message.reference, ReceiptState.ACCEPTED)
        await inbox.receipts(DM, [late])
        await inbox.receipts(DM, [Receipt("nobody-knows", ReceiptState.FAILED)])
        # Another provider cannot speak for a message that it was never given.
        await inbox.receipts(SMS, [Receipt(by_name[DM].message.reference, ReceiptState.FAILED)])
        shown = await rig.notice(trouble.notice_id())
        assert {s["channel"]: s["state"] for s in shown["steps"]} == {"sms": "delivered", "dm": "sent"}
        told = await rig.rows("SELECT headers FROM dispatcher.outbox ORDER BY id")
        assert len([row for row in told if "notice.sent.v1" in row.headers]) == 2
        assert len([row for row in told if "notice.delivered.v1" in row.headers]) == 1


def rig_channel(rig: Rig, call: Any) -> Sandbox:
    return Sandbox(call.claim.candidate.provider, rig.database, rig.clock)


async def test_a_receipt_settles_what_was_unknown_and_an_undelivered_one_is_not_sent_there_again(
    database: str,
) -> None:
    trouble = Trouble()
    await claims(database, trouble)
    async with at_work(database, running=False) as rig:
        await release_silently(rig)
        done = await a_claiming(rig, "dead").round(PLACES, patient=True)
        references = {c.claim.candidate.provider: c.message.reference for c in done.calls}
    async with at_work(database, start=NOON + hours(1)) as rig:
        await rig.settled()
        assert await rig.story() == ["held", "unknown", "unknown"]
        inbox = an_inbox(rig)
        await inbox.receipts(SMS, [Receipt(references[SMS], ReceiptState.DELIVERED)])
        await inbox.receipts(DM, [Receipt(references[DM], ReceiptState.FAILED, "no such user")])
        await rig.settled()
        assert sorted((await rig.story())[3:]) == ["delivered", "failed", "sent"]
        assert await rig.phone() == []


async def test_an_account_error_pauses_the_channel_and_its_notices_wait(database: str) -> None:
    trouble = Trouble()
    await claims(database, trouble)
    async with at_work(database, running=False) as rig:
        await release_silently(rig)
        done = await a_claiming(rig, "p1").round(PLACES, patient=True)
        answers = [Answered(c, Failed("no balance is left", account=True)) for c in done.calls]
        await a_recording(rig, "p1").record(answers)
        channels = {c["name"]: c for c in (await rig.get("/v1/channels"))["items"]}
        assert channels[SMS]["needs_a_person"]
        assert channels[SMS]["reason"] == "no balance is left"
        again = await a_claiming(rig, "p1").round(PLACES, patient=True)
        assert again.calls == []
        assert (await rig.notice(trouble.notice_id()))["state"] in ("ready", "waiting")
        await rig.post(f"/v1/channels/{SMS}/resume")
        await rig.post(f"/v1/channels/{DM}/resume")
        more = await a_claiming(rig, "p1").round(PLACES, patient=True)
        assert len(more.calls) == 2


async def test_nothing_is_claimed_by_an_old_view_and_near_the_limit_a_person_gets_it(database: str) -> None:
    trouble = Trouble()
    await claims(database, trouble)
    async with at_work(database, running=False, start=NOON + hours(1)) as rig:
        await release_silently(rig)
        claiming = a_claiming(rig, "p1")
        assert (await claiming.round(PLACES, patient=True)).stale
        assert (await claiming.round(PLACES, patient=False)).looked == 0
        rig.clock.advance(hours(0.75))
        assert (await claiming.round(PLACES, patient=False)).calls == []
        shown = await rig.notice(trouble.notice_id())
        assert (shown["state"], shown["reason"]) == ("held", "stale_view")


async def test_a_person_sends_where_the_channel_is_assisted(database: str) -> None:
    from shared.settings import ChannelsSettings, Settings

    settings = Settings(channels=ChannelsSettings(assisted=True))
    async with at_work(database, settings=settings) as rig:
        trouble = Trouble()
        await rig.publish(configured(), trouble.incident(), trouble.notice())
        [asked] = await rig.told("held")
        assert (asked.reason, asked.provider, asked.step) == ("assisted", "assisted", 1)
        assert (await rig.notice(trouble.notice_id()))["state"] == "waiting"
        await rig.post(f"/v1/notices/{trouble.notice_id()}/sent")
        await rig.settled()
        [sent] = await rig.told("sent")
        assert (sent.by, sent.channel) == ("first key", "dm")
        await rig.publish(trouble.incident(2, date=75), trouble.notice(Purpose.UPDATE, 2, told_date=NOON + hours(75)))
        assert (await rig.told("suppressed"))[0].reason == "small_move"
