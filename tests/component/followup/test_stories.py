"""Whole stories of the follow-up: events in, events out, cases and tasks over REST."""

from typing import Any

from shared.bus.port import Message
from shared.events.deliveries import Channel, Reason
from shared.events.envelope import event, to_message
from shared.events.incidents import How, Scenario
from shared.events.notices import Purpose
from shared.events.orders import RemedyCompleted
from shared.events.stores import Mode, StoreConfigured, WaveReleased
from tests.component.followup.conftest import Rig
from tests.support.cases import CaseStory
from tests.support.stories import START, hours

S = CaseStory()


def setting(data: Any, name: str) -> Any:
    return event(data, id=name, source="test/console", time=START)


async def told(rig: Rig, story: CaseStory = S) -> None:
    await rig.publish(story.opened(), story.composed(0.01))
    await rig.at(0.2, story.sent(0.2), story.delivered(0.21))


async def test_a_refund_over_rest_from_the_reply_to_the_end(rig: Rig) -> None:
    await told(rig)
    [case] = await rig.items("/v1/cases", order_id=S.order_id)
    assert (case["case_id"], case["state"], case["detected_to_contacted_seconds"]) == (S.case_id, "told", 720)
    await rig.at(1)
    answer = await rig.post(f"/v1/cases/{S.case_id}/replies", {"text": "选 2，谢谢"}, 202)
    [choice] = await rig.emitted("choice.made")
    assert (choice.number, choice.code, choice.reply_id, choice.by) == (2, "refund", answer["reply_id"], "first key")
    [remedy] = await rig.emitted("remedy.requested")
    assert (remedy.kind, remedy.remedy_id, remedy.due_at) == ("refund", S.remedy_id, START + hours(2))
    [step] = await rig.emitted("notice.requested")
    assert (step.purpose, step.due_at) == (Purpose.NEXT_STEP, START + hours(2))
    [promise] = await rig.items("/v1/promises", order_id=S.order_id, state="open")
    assert (promise["kind"], promise["due_at"]) == ("refund", "2026-12-12T02:00:00Z")
    await rig.at(1.4, S.composed(1, Purpose.NEXT_STEP), S.sent(1, Purpose.NEXT_STEP), S.remedied(1.4))
    assert [p.kind for p in await rig.emitted("promise.kept")] == ["refund"]
    assert len(await rig.emitted("notice.requested", purpose=Purpose.SATISFACTION)) == 1
    assert await rig.emitted("case.closed") == []
    await rig.at(1.5, S.composed(1.5, Purpose.SATISFACTION), S.sent(1.5, Purpose.SATISFACTION, channel=Channel.CHAT))
    [closed] = await rig.emitted("case.closed")
    assert (closed.closed_as, closed.choice, closed.complaint) == ("remedied", "refund", False)
    await rig.at(2, S.reply(2, "五星，很快"))
    [scored] = await rig.emitted("satisfaction.scored")
    assert scored.score == 5
    await rig.at(24 * 20)
    whole = await rig.get(f"/v1/cases/{S.case_id}")
    assert (whole["state"], whole["score"], whole["tasks"]) == ("closed", 5, [])
    assert {p["state"] for p in whole["promises"]} == {"kept", "void"}
    assert whole["incident"]["cause"] == "warehouse_backlog"
    types = [moment["type"] for moment in whole["timeline"]]
    for kind in (
        *("incident.opened.v1", "case.opened.v1", "notice.composed.v1", "notice.sent.v1", "notice.delivered.v1"),
        *("reply.received.v1", "choice.made.v1", "remedy.requested.v1", "notice.requested.v1", "remedy.completed.v1"),
        *("promise.kept.v1", "case.closed.v1", "satisfaction.scored.v1"),
    ):
        assert kind in types, kind
    assert [m["at"] for m in whole["timeline"]] == sorted(m["at"] for m in whole["timeline"])
    assert "小鱼" not in str(whole["timeline"])
    assert await rig.dead_letters() == []


async def test_a_wait_until_the_delivery(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "我等，谢谢"))
    assert [(r.kind, r.amount, r.gift) for r in await rig.emitted("remedy.requested")] == [("wait", 10, True)]
    await rig.at(2, S.remedied(2))
    await rig.at(60, S.order.shipped(60), S.resolved(60))
    await rig.at(80, S.order.delivered(80))
    assert sorted(p.kind for p in await rig.emitted("promise.kept")) == ["coupon", "ship_by"]
    assert len(await rig.emitted("notice.requested", purpose=Purpose.SATISFACTION)) == 1
    await rig.at(80.1, S.composed(80.1, Purpose.SATISFACTION), S.unknown(80.1, Purpose.SATISFACTION))
    [closed] = await rig.emitted("case.closed")
    assert (closed.closed_as, closed.compensation, closed.choice) == ("shipped", 10, "wait")


async def test_a_wave_that_nears_its_date_is_one_task(rig: Rig) -> None:
    stories = [CaseStory(f"D{n}") for n in range(3)]
    await rig.publish(*(s.opened() for s in stories), *(s.composed(0.01) for s in stories))
    await rig.at(0.2, *(s.sent(0.2) for s in stories))
    await rig.at(69)
    [task] = await rig.items("/v1/tasks", state="open", kind="promise_at_risk")
    assert (task["count"], sorted(task["order_ids"]), task["case_id"]) == (3, ["D0", "D1", "D2"], None)
    await rig.at(70, stories[0].order.shipped(70), stories[1].order.shipped(70))
    [task] = await rig.items("/v1/tasks", state="open", kind="promise_at_risk")
    assert (task["count"], task["order_ids"], task["case_id"]) == (1, ["D2"], stories[2].case_id)
    assert len(await rig.items("/v1/promises", state="at_risk")) == 1


async def test_one_reminder_and_never_a_second(rig: Rig) -> None:
    await told(rig)
    await rig.at(24)
    assert await rig.emitted("notice.requested") == []
    await rig.at(24.2)
    [request] = await rig.emitted("notice.requested")
    assert (request.purpose, request.channel_hint) == (Purpose.REMINDER, "sms")
    await rig.publish(S.composed(24.2, Purpose.REMINDER), S.sent(24.3, Purpose.REMINDER), S.sent(0.2))
    await rig.at(67)
    assert len(await rig.emitted("notice.requested")) == 1


async def test_a_nonsense_reply_is_answered_by_a_person(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "这围巾我妈说不好看，你们怎么看？"), S.reply(1.01, "在吗？"))
    [task] = await rig.items("/v1/tasks", order_id=S.order_id)
    assert (task["kind"], task["state"], task["case_id"], task["order_ids"]) == (
        *("unclear_reply", "open", S.case_id),
        [S.order_id],
    )
    assert task["count"] == 1, "two replies of one case are one task"
    claimed = await rig.post(f"/v1/tasks/{task['task_id']}/claim")
    assert (claimed["state"], claimed["claimed_by"]) == ("claimed", "first key")
    wrong = await rig.post(f"/v1/tasks/{task['task_id']}/answer", {"number": 3}, 409)
    assert "no option 3" in wrong["detail"]
    await rig.post(f"/v1/tasks/{task['task_id']}/answer", {}, 422)
    answered = await rig.post(f"/v1/tasks/{task['task_id']}/answer", {"number": 2, "text": "电话 13812345678 确认"})
    assert (answered["state"], answered["note"]) == ("done", "电话 …5678 确认")
    [choice] = await rig.emitted("choice.made")
    assert (choice.number, choice.by, choice.reply_id) == (2, "first key", None)
    await rig.post(f"/v1/tasks/{task['task_id']}/done", {"note": "again"}, 409)
    assert await rig.items("/v1/tasks", state="open") == []


async def test_a_change_of_mind_goes_to_a_person(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "2"), S.reply(1.1, "2"), S.reply(1.2, "算了，还是1吧"))
    assert len(await rig.emitted("remedy.requested")) == 1
    [task] = await rig.items("/v1/tasks", kind="unclear_reply")
    refused = await rig.post(f"/v1/tasks/{task['task_id']}/answer", {"number": 1}, 409)
    assert "has chosen refund already" in refused["detail"]
    await rig.post(f"/v1/tasks/{task['task_id']}/answer", {"text": "told the customer"})
    assert len(await rig.emitted("choice.made")) == 1


async def test_a_promise_alerts_then_breaks_then_a_person_ends_it(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "退款"))
    await rig.at(1.75)
    [task] = await rig.items("/v1/tasks")
    assert (task["kind"], task["due_at"]) == ("promise_at_risk", "2026-12-12T02:00:00Z")
    assert [p["state"] for p in await rig.items("/v1/promises", state="at_risk")] == ["at_risk"]
    await rig.at(2)
    [broken] = await rig.emitted("promise.broken")
    assert broken.kind == "refund"
    assert [e.task for e in await rig.emitted("case.escalated")] == ["promise_broken"]
    [open_one] = await rig.items("/v1/tasks", state="open")
    assert (open_one["kind"], open_one["urgency"]) == ("promise_broken", 2)
    [gone] = await rig.items("/v1/tasks", kind="promise_at_risk")
    assert (gone["state"], gone["done_by"], gone["order_ids"]) == ("done", "headsup", [S.order_id])
    await rig.post(f"/v1/tasks/{open_one['task_id']}/done", {"note": "refunded by hand"})
    [closed] = await rig.emitted("case.closed")
    assert closed.closed_as == "by_person"
    assert await rig.emitted("notice.requested", purpose=Purpose.SATISFACTION) == []


async def test_after_a_broken_promise_a_person_calls_and_nothing_is_asked(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "退款"))
    await rig.at(3, S.remedied(3))
    assert await rig.emitted("notice.requested", purpose=Purpose.SATISFACTION) == []
    assert {t["kind"] for t in await rig.items("/v1/tasks", state="open")} == {"call", "promise_broken"}
    assert [c.closed_as for c in await rig.emitted("case.closed")] == ["remedied"]


async def test_a_failed_remedy_is_a_persons(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "退款"), S.remedy_failed(1.1))
    [task] = await rig.items("/v1/tasks")
    assert task["kind"] == "remedy_failed"
    assert "no such payment" in task["reason"]
    assert [e.task for e in await rig.emitted("case.escalated")] == ["remedy_failed"]


async def test_a_person_ticks_a_promise(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "退款"))
    [promise] = await rig.items("/v1/promises", state="open")
    kept = await rig.post(f"/v1/promises/{promise['promise_id']}/kept")
    assert kept["state"] == "kept"
    assert len(await rig.emitted("promise.kept")) == 1
    await rig.at(3)
    assert await rig.emitted("promise.broken") == []
    [void] = await rig.items("/v1/promises", state="void")
    await rig.post(f"/v1/promises/{void['promise_id']}/kept", status=409)


async def test_an_unknown_send_is_a_persons_until_a_receipt_comes(rig: Rig) -> None:
    await rig.publish(S.opened(), S.composed(0.01))
    await rig.at(0.2, S.unknown(0.2))
    await rig.at(0.36)
    assert await rig.items("/v1/tasks") == []
    await rig.at(0.4)
    [task] = await rig.items("/v1/tasks", order_id=S.order_id, kind="unknown_send")
    assert (task["state"], task["due_at"]) == ("open", "2026-12-12T02:00:00Z")
    await rig.at(0.5, S.delivered(0.5))
    [settled] = await rig.items("/v1/tasks", kind="unknown_send")
    assert (settled["state"], settled["note"]) == ("done", "no longer needed")


async def test_over_before_anybody_was_told(rig: Rig) -> None:
    await rig.publish(S.opened(), S.composed(0.01))
    await rig.at(0.1, S.order.shipped(0.1), S.resolved(0.1), S.suppressed(0.1, Reason.RESOLVED))
    [closed] = await rig.emitted("case.closed")
    assert (closed.closed_as, closed.detected_to_contacted_seconds) == ("withdrawn", None)
    await rig.at(24 * 30)
    assert await rig.items("/v1/tasks") == []
    assert await rig.emitted("notice.requested") == []


async def test_a_store_that_is_off_has_no_cases(rig: Rig) -> None:
    modes = {Scenario.SHIPPING_DELAY: Mode.SHADOW}
    await rig.publish(setting(StoreConfigured(store_id=S.store_id, modes=modes), "s1"))
    await rig.publish(S.opened(), S.composed(0.01), S.suppressed(0.02, Reason.SHADOW))
    await rig.at(5)
    assert await rig.items("/v1/cases") == []
    assert await rig.items("/v1/tasks") == []
    assert await rig.emitted("case.opened") == []


async def test_the_clocks_of_a_wave_are_one_task(rig: Rig) -> None:
    stories = [CaseStory(f"W{n:03}") for n in range(40)]
    await rig.publish(*(s.opened() for s in stories), stories[0].wave(0.1))
    await rig.publish(*(s.held(0.01, Reason.WAVE) for s in stories))
    [wave] = await rig.items("/v1/tasks")
    assert (wave["kind"], wave["count"], len(wave["order_ids"])) == ("wave", 250, 40)
    assert wave["wave_id"] == "wave-shop-1"
    await rig.at(0.5)
    assert {(t["kind"], t["count"]) for t in await rig.items("/v1/tasks")} == {("wave", 250), ("contact_due", 40)}
    [due] = await rig.items("/v1/tasks", order_id="W007", kind="contact_due")
    assert (due["case_id"], due["wave_id"]) == (None, None)
    assert len(await rig.items("/v1/tasks", order_id="W007")) == 2
    released = setting(WaveReleased(store_id="shop-1", wave_id="wave-shop-1"), "w1")
    await rig.publish(released, *(s.released(0.6) for s in stories), *(s.sent(0.6) for s in stories))
    assert await rig.items("/v1/tasks", state="open") == []
    assert [t["wave_id"] for t in await rig.items("/v1/tasks", kind="wave")] == ["wave-shop-1"]
    assert len(await rig.emitted("case.opened")) == 40


async def test_replies_find_their_case_or_a_person(rig: Rig) -> None:
    first, second = CaseStory("A1"), CaseStory("B2")
    await rig.publish(first.opened(), second.opened(), first.composed(0.01), second.composed(0.01, first=3))
    await rig.at(0.2, first.sent(0.2), second.sent(0.2))
    both = {"incident_ids": (first.case_id, second.case_id), "order_id": first.order_id}
    await rig.at(1, first.reply(1, "4", **both))
    assert [(c.order_id, c.number) for c in await rig.emitted("choice.made")] == [("B2", 4)]
    await rig.publish(first.reply(1, "4", **both))
    assert len(await rig.emitted("choice.made")) == 1, "the same reply again finds the same case"
    await rig.at(2, first.reply(2, "退款", **both))
    assert [(c.order_id, c.number) for c in await rig.emitted("choice.made")] == [("B2", 4), ("A1", 2)]
    nobody = first.reply(3, "我的快递呢", order_id=None, store_id=None, incident_ids=())
    await rig.at(3, nobody, nobody)
    [task] = await rig.items("/v1/tasks", kind="unknown_sender")
    assert "我的快递呢" in task["reason"]
    await rig.post(f"/v1/tasks/{task['task_id']}/done")
    await rig.publish(nobody)
    assert len(await rig.items("/v1/tasks", kind="unknown_sender")) == 1


async def test_words_that_fit_two_cases_are_a_persons(rig: Rig) -> None:
    first, second = CaseStory("A1"), CaseStory("B2")
    await rig.publish(first.opened(), second.opened(), first.composed(0.01), second.composed(0.01, first=3))
    await rig.at(0.2, first.sent(0.2), second.sent(0.2))
    await rig.at(1, first.reply(1, "退款", incident_ids=(first.case_id, second.case_id)))
    assert await rig.emitted("choice.made") == []
    [task] = await rig.items("/v1/tasks")
    assert (task["kind"], task["case_id"]) == ("unclear_reply", first.case_id)


async def test_what_came_before_the_incident_takes_effect_with_it(rig: Rig) -> None:
    await rig.publish(S.order.shipped(0.05), S.sent(0.04), S.composed(0.01), S.reply(0.045, "2"))
    await rig.publish(S.opened())
    assert len(await rig.emitted("remedy.requested")) == 1
    [task] = await rig.items("/v1/tasks", kind="remedy_failed")
    assert "shipped although" in task["reason"]


async def test_events_again_change_nothing_and_a_strangers_remedy_neither(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "2"))
    stranger = event(RemedyCompleted(remedy_id="not-ours", at=START), id="r", source="test/shop", time=START)
    await rig.publish(S.opened(), S.composed(0.01), S.sent(0.2), S.delivered(0.21), S.reply(1, "2"), stranger)
    assert len(await rig.emitted("remedy.requested")) == 1
    assert len(await rig.emitted("case.opened")) == 1
    whole = await rig.get(f"/v1/cases/{S.case_id}")
    assert len([m for m in whole["timeline"] if m["type"] == "notice.sent.v1"]) == 1
    # A remedy's answer need not say which order it is about.
    silent = event(RemedyCompleted(remedy_id=S.remedy_id, at=START + hours(1)), id="x", source="test/shop", time=START)
    await rig.publish(silent)
    assert len(await rig.emitted("promise.kept")) == 1


async def test_events_of_many_cases_meet_from_all_topics_at_once(rig: Rig) -> None:
    """Nothing says which topic is read first; partitions work at the same time and meet on the same rows."""
    stories = [CaseStory(f"N{n:03}") for n in range(100)]
    other = {s.order_id: stories[n - 1] for n, s in enumerate(stories)}
    everything = [
        e
        for s in stories
        for e in (
            *(s.opened(), s.composed(0.01), s.sent(0.02), s.delivered(0.03), s.order.shipped(0.2)),
            s.reply(0.1, "2", incident_ids=(s.case_id,)),
            # Numbers that are no option: one more reply, by way of two orders' cases.
            s.reply(0.15, "7", incident_ids=(s.case_id, other[s.order_id].case_id)),
        )
    ]
    await rig.publish(*everything)
    await rig.publish(*reversed(everything))
    await rig.at(0.3)
    assert len({r.case_id for r in await rig.emitted("remedy.requested")}) == 100
    assert len(await rig.emitted("remedy.requested")) == 100
    assert len(await rig.emitted("case.opened")) == 100
    cases = await rig.items("/v1/cases", limit=200)
    assert {(c["state"], c["choice"]) for c in cases} == {("chosen", "refund")}
    assert sum(c["replies"] for c in cases) == 200
    tasks = await rig.items("/v1/tasks", limit=500, state="open")
    assert len([t for t in tasks if t["kind"] == "remedy_failed"]) == 100
    assert await rig.dead_letters() == []


async def test_cancelled_after_a_choice_to_wait(rig: Rig) -> None:
    await told(rig)
    await rig.at(1, S.reply(1, "1"))
    await rig.at(5, S.order.cancelled(5), S.resolved(5, How.CANCELLED))
    assert [c.closed_as for c in await rig.emitted("case.closed")] == ["cancelled"]
    assert {p["state"] for p in await rig.items("/v1/promises")} == {"void"}


async def test_a_bad_record_does_not_stop_its_neighbours(rig: Rig) -> None:
    good = to_message(S.opened())
    producer = rig.bus.producer()
    await producer.start()
    await producer.send([Message(good.topic, good.key, b"{", good.headers), good])
    await producer.stop()
    await rig.settled()
    assert len(await rig.emitted("case.opened")) == 1
    assert len(await rig.dead_letters()) == 1
