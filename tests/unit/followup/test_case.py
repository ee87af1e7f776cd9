"""The life of a case by its facts and the time alone."""

from collections import Counter
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.followup.rules.case import Outcome, route, settle, state_of
from services.followup.rules.facts import Case
from services.followup.rules.fold import ORDER_EVENTS, fold, fold_order
from services.followup.rules.order import Order
from services.followup.rules.tasks import Task
from shared.events.cases import ClosedAs
from shared.events.deliveries import Channel, Reason
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.notices import Purpose, RemedyKind
from shared.events.orders import CustomerContacted, DisputeOpened, OrderPayload, OrderRefundRequested
from shared.events.stores import StoreConfigured, quiet_until
from tests.support.cases import CaseStory
from tests.support.stories import START, hours

S = CaseStory()


class Play:
    """Applies events one by one and lets time pass, as the shell does."""

    def __init__(self, *events: Event[Any], now: float = 0, watched: bool = True) -> None:
        self.case, self.order, self.now, self.watched = Case(S.case_id), Order(), START + hours(now), watched
        self.store = StoreConfigured(store_id=S.store_id)
        self.emitted: list[Event[Any]] = []
        self.raised: list[Task] = []
        self.open: dict[str, Task] = {}
        self.look_at: datetime | None = None
        self.take(*events)

    def take(self, *events: Event[Any]) -> "Play":
        for news in events:
            if isinstance(news.data, ORDER_EVENTS):
                fold_order(self.order, news)
            fold(self.case, news, self.now)
            self._settle()
        return self

    def at(self, hour: float, *events: Event[Any]) -> "Play":
        """Let time pass to `hour`, stopping at each due time, then take the events."""
        until = START + hours(hour)
        while self.look_at is not None and self.look_at <= until:
            assert self.look_at > self.now, "a due time that does not move"
            self.now = self.look_at
            self._settle()
        self.now = until
        return self.take(*events)

    def _settle(self) -> None:
        self._settled(settle(self.case, self.order, self.now, self.watched, self.store))

    def _settled(self, outcome: Outcome) -> None:
        self.emitted += outcome.emits
        self.raised += outcome.raised
        for key in outcome.withdrawn:
            del self.open[key]
        self.open.update({task.key: task for task in outcome.raised})
        self.look_at = outcome.look_at

    def count(self, kind: str, /, **fields: Any) -> int:
        return len(self.found(kind, **fields))

    def found(self, kind: str, /, **fields: Any) -> list[Any]:
        data = [e.data for e in self.emitted if e.type == f"{kind}.v1"]
        return [d for d in data if all(getattr(d, name) == value for name, value in fields.items())]

    @property
    def kinds(self) -> Counter[str]:
        return Counter(str(task.kind) for task in self.open.values())

    @property
    def state(self) -> str:
        return state_of(self.case)


def told(now: float = 0.2) -> Play:
    return Play(S.opened(), S.composed(0.01), now=0.01).at(now, S.sent(now))


def test_a_refund_from_the_first_word_to_the_end() -> None:
    play = told().at(1, S.reply(1, "2"))
    [choice] = play.found("choice.made")
    assert (choice.number, choice.code, choice.at) == (2, RemedyKind.REFUND, START + hours(1))
    [remedy] = play.found("remedy.requested")
    assert (remedy.remedy_id, remedy.kind) == (S.remedy_id, RemedyKind.REFUND)
    assert remedy.due_at == START + hours(2)
    [step] = play.found("notice.requested")
    assert (step.purpose, step.due_at, step.channel_hint) == (Purpose.NEXT_STEP, START + hours(2), "sms")
    assert play.state == "chosen"
    play.at(1.5, S.remedied(1.4))
    [kept] = play.found("promise.kept")
    assert kept.kind == "refund"
    assert play.count("notice.requested", purpose=Purpose.SATISFACTION) == 1
    assert play.state == "remedied"
    play.at(1.6, S.composed(1.6, Purpose.SATISFACTION), S.sent(1.6, Purpose.SATISFACTION))
    [closed] = play.found("case.closed")
    assert (closed.closed_as, closed.choice, closed.score) == (ClosedAs.REMEDIED, RemedyKind.REFUND, None)
    assert closed.detected_to_contacted_seconds == 720
    assert closed.occurred_to_contacted_seconds == 4320
    play.at(30, S.reply(30, "5分，很满意"))
    [scored] = play.found("satisfaction.scored")
    assert (scored.score, scored.words) == (5, "5分，很满意")
    play.at(24 * 60)
    assert play.count("promise.broken") == 0
    assert play.count("case.closed") == 1
    assert play.raised == []


def test_a_wait_ends_with_the_delivery() -> None:
    play = told().at(1, S.reply(1, "我等"), S.remedied(1.2))
    assert play.found("remedy.requested")[0].kind is RemedyKind.WAIT
    assert play.found("remedy.requested")[0].gift is True
    assert play.found("notice.requested")[0].due_at == START + hours(80)
    assert [k.kind for k in play.found("promise.kept")] == ["coupon"]
    play.at(60, S.order.shipped(60), S.resolved(60))
    assert sorted(k.kind for k in play.found("promise.kept")) == ["coupon", "ship_by"]
    assert play.state != "closed"
    play.at(90, S.order.delivered(90))
    assert play.count("notice.requested", purpose=Purpose.SATISFACTION) == 1
    play.at(91, S.suppressed(91, Reason.NO_CHANNEL, Purpose.SATISFACTION))
    [closed] = play.found("case.closed")
    assert (closed.closed_as, closed.compensation) == (ClosedAs.SHIPPED, 10)
    assert play.raised == []


def test_a_wait_without_word_of_the_delivery_closes_after_14_days() -> None:
    play = told().at(1, S.reply(1, "1"), S.remedied(1)).at(70, S.order.shipped(70), S.resolved(70))
    play.at(70 + 14 * 24 - 1)
    assert play.count("case.closed") == 0
    play.at(70 + 14 * 24)
    assert play.count("case.closed") == 1
    assert play.count("notice.requested", purpose=Purpose.SATISFACTION) == 0


def test_no_reply_brings_one_reminder_and_never_a_second() -> None:
    play = told().at(24.1)
    assert play.count("notice.requested") == 0
    play.at(24.2)
    assert play.count("notice.requested", purpose=Purpose.REMINDER) == 1
    play.take(S.composed(24.2, Purpose.REMINDER), S.sent(24.2, Purpose.REMINDER)).at(24 * 60)
    assert play.count("notice.requested", purpose=Purpose.REMINDER) == 1


@pytest.mark.parametrize(
    "event",
    [
        S.reply(3, "哪天发货?"),
        S.reply(3, "1"),
        S.order.shipped(3),
        S.resolved(3, How.BACK_IN_TIME),
        S.resolved(3, How.CANCELLED),
        S.opted_out(3),
        S.asked(OrderRefundRequested, 3),
        S.asked(CustomerContacted, 3),
        S.asked(DisputeOpened, 3),
    ],
    ids=[
        *("asked", "chosen", "shipped", "back in time", "cancelled", "opted out"),
        *("applied for a refund", "contacted the shop", "in dispute"),
    ],
)
def test_no_reminder_once_that_happened(event: Event[Any]) -> None:
    play = told().at(3, event).at(24 * 30)
    assert play.count("notice.requested", purpose=Purpose.REMINDER) == 0


@pytest.mark.parametrize("kind", [OrderRefundRequested, CustomerContacted, DisputeOpened])
def test_who_turns_to_the_shop_after_the_message_is_a_persons(kind: type[OrderPayload]) -> None:
    play = told().at(3, S.asked(kind, 3))
    [task] = play.open.values()
    assert (task.kind, task.due_at) == ("asked_first", START + hours(4))
    assert "after our message" in task.reason
    play.take(S.asked(kind, 3)).at(5, S.reply(5, "2"))
    assert len(play.raised) == 1
    assert play.kinds["asked_first"] == 0, "who has chosen after all needs nobody for that"


def test_what_was_asked_before_the_message_is_no_answer_to_it() -> None:
    play = told().take(S.asked(CustomerContacted, -5)).at(25)
    assert play.raised == []
    assert play.count("notice.requested", purpose=Purpose.REMINDER) == 1


def test_nonsense_is_a_persons_and_a_later_digit_still_chooses() -> None:
    play = told().at(1, S.reply(1, "我的猫喜欢这个盒子"))
    assert play.kinds == {"unclear_reply": 1}
    assert play.count("choice.made") == 0
    play.at(2, S.reply(2, "那就 2 吧"))
    assert play.count("choice.made") == 1


def test_the_first_choice_counts_and_a_change_of_mind_is_a_persons() -> None:
    play = told().at(1, S.reply(1, "2")).at(1.1, S.reply(1.1, "退款"))
    assert play.kinds == {}
    play.at(1.2, S.reply(1.2, "还是等吧"))
    assert [task.reason for task in play.open.values()] == ["change_of_mind: first refund, now wait"]
    assert play.count("remedy.requested") == 1
    assert play.count("choice.made") == 1


def test_a_failed_remedy_is_a_persons_who_then_closes_it() -> None:
    play = told().at(1, S.reply(1, "2")).at(1.2, S.remedy_failed(1.2))
    assert play.kinds == {"remedy_failed": 1}
    assert play.count("case.escalated", task="remedy_failed") == 1
    play.case.by_person = play.now
    play.at(1.3, S.remedy_failed(1.2))
    assert [c.closed_as for c in play.found("case.closed")] == [ClosedAs.BY_PERSON]
    assert play.count("promise.broken") == 0


def test_a_failed_remedy_that_works_after_all_needs_nobody() -> None:
    play = told().at(1, S.reply(1, "2")).at(1.2, S.remedy_failed(1.2)).at(1.5, S.remedied(1.5))
    assert play.kinds == {}
    assert play.state == "remedied"


def test_a_promise_alerts_before_it_breaks_and_escalates_when_it_does() -> None:
    play = told().at(1, S.reply(1, "2")).at(1.74)
    assert play.kinds == {}
    play.at(1.75)
    assert play.kinds == {"promise_at_risk": 1}
    play.at(2)
    assert play.kinds == {"promise_broken": 1}
    assert play.count("promise.broken", kind="refund") == 1
    assert play.count("case.escalated", task="promise_broken") == 1
    play.at(3, S.remedied(3))
    assert play.count("notice.requested", purpose=Purpose.SATISFACTION) == 0
    assert play.kinds == {"promise_broken": 1, "call": 1}
    assert play.state == "closed"


def test_over_before_anybody_was_told_is_withdrawn() -> None:
    play = Play(S.opened(), S.composed(0.01), S.resolved(0.1), now=0.1)
    assert play.count("case.closed") == 0, "the dispatcher has not said yet that it did not go out"
    play.take(S.suppressed(0.1, Reason.RESOLVED))
    assert [c.closed_as for c in play.found("case.closed")] == [ClosedAs.WITHDRAWN]
    play.at(24 * 20)
    assert play.raised == []


def test_withdrawn_even_where_the_word_of_the_notice_never_comes() -> None:
    play = Play(S.opened(), S.composed(0.01), S.resolved(0.1, How.CANCELLED), now=0.1).at(1)
    assert [c.closed_as for c in play.found("case.closed")] == [ClosedAs.WITHDRAWN]


def test_a_case_that_was_told_after_all_is_not_withdrawn() -> None:
    play = Play(S.opened(), S.resolved(0.1), now=0.1)
    assert play.state == "closed"
    play.take(S.composed(0.05), S.sent(0.08))
    assert play.state == "told"


def test_cancelled_after_the_customer_was_told() -> None:
    play = told().at(5, S.resolved(5, How.CANCELLED))
    assert [c.closed_as for c in play.found("case.closed")] == [ClosedAs.CANCELLED]
    assert play.count("promise.broken") == 0
    assert {e.state for e in play.case.ledger.values()} == {"void"}


def test_back_in_time_after_the_customer_was_told_goes_on_until_it_ships() -> None:
    play = told().at(5, S.resolved(5, How.BACK_IN_TIME))
    assert play.state == "told"
    play.at(40, S.order.shipped(40)).at(50, S.order.delivered(50)).at(75)
    assert [c.closed_as for c in play.found("case.closed")] == [ClosedAs.SHIPPED]


def test_opened_again_is_the_same_case() -> None:
    play = Play(S.opened(), S.resolved(0.1, How.BACK_IN_TIME, revision=2), now=0.1)
    assert play.state == "closed"
    play.at(10, S.opened(10, revision=3))
    assert play.state == "open"
    assert play.count("case.opened") == 2
    play.at(11)
    assert play.kinds == {"contact_due": 1}


def test_a_store_that_is_off_opens_no_case_until_it_is_live() -> None:
    play = Play(S.opened(), S.composed(0.01), S.suppressed(0.01, Reason.SHADOW), watched=False).at(5)
    assert play.emitted == []
    assert play.raised == []
    play.watched = True
    play.take(S.updated(6))
    assert play.count("case.opened") == 1


def test_the_first_contact_that_is_not_out_is_told_with_growing_urgency() -> None:
    play = Play(S.opened()).at(0.49)
    assert play.kinds == {}
    for hour, urgency, escalations in [(0.5, 1, 0), (1.0, 2, 1), (1.5, 3, 2)]:
        play.at(hour)
        [task] = play.open.values()
        assert (task.kind, task.urgency, task.due_at) == ("contact_due", urgency, START + hours(2))
        assert play.count("case.escalated", task="contact_due") == escalations
    play.at(1.6, S.sent(1.6))
    assert play.kinds == {}


@pytest.mark.parametrize("reason", [Reason.REJECTED, Reason.NOT_A_TEST_RECIPIENT])
def test_nobody_is_paged_for_what_a_person_stopped(reason: Reason) -> None:
    play = Play(S.opened(), S.composed(0.01), S.suppressed(0.1, reason), now=0.1).at(3)
    assert play.raised == []


def test_an_unknown_send_is_a_persons_unless_a_receipt_settles_it() -> None:
    play = Play(S.opened(), S.composed(0.01), S.unknown(0.2), now=0.2).at(0.36)
    assert play.raised == []
    play.at(0.37)
    assert play.kinds == {"unknown_send": 1}
    assert next(iter(play.open.values())).due_at == START + hours(2)
    play.at(0.5, S.delivered(0.5))
    assert play.kinds == {}
    assert play.state == "told"
    settled = Play(S.opened(), S.composed(0.01), S.unknown(0.2), S.delivered(0.3), now=0.3).at(2)
    assert settled.raised == []


def test_an_unknown_send_is_a_persons_before_the_contact_is_due() -> None:
    play = Play(S.opened(due=0.5), S.composed(0.01), S.unknown(0.2), now=0.2).at(0.25)
    assert play.kinds["unknown_send"] == 1
    late = Play(S.opened(due=0.3), S.composed(0.01), S.unknown(0.2), now=0.2)
    assert late.kinds["unknown_send"] == 1


def test_held_notices_share_one_task_until_released() -> None:
    play = Play(S.opened(), S.composed(0.01), S.held(0.01, Reason.APPROVAL), now=0.01)
    [task] = play.open.values()
    assert task.kind == "held_notice"
    assert task.group == "held_notice/shop-1/shipping_delay/warehouse_backlog/approval"
    play.at(0.1, S.released(0.1))
    assert play.kinds == {}


@pytest.mark.parametrize(
    ("reason", "fields", "kind"),
    [
        (Reason.ASKED_FIRST, {}, "asked_first"),
        (Reason.WAVE, {}, "wave"),
        (Reason.NO_CHANNEL, {"provider": "assisted"}, "assisted_send"),
        (Reason.MUST_BROKEN, {"releasable": False}, "held_notice"),
    ],
)
def test_a_hold_becomes_the_task_that_fits(reason: Reason, fields: dict[str, Any], kind: str) -> None:
    play = Play(S.opened(), S.composed(0.01), S.held(0.01, reason, **fields), now=0.01)
    assert play.kinds == {kind: 1}


def test_nobody_reached_is_a_persons() -> None:
    play = Play(S.opened(), S.composed(0.01), S.failed(0.02), now=0.02)
    assert play.kinds == {"not_reached": 1}
    assert Play(S.opened(), S.composed(0.01), S.failed(0.02, final=False), now=0.02).kinds == {}
    undelivered = S.failed(0.2, reason=Reason.UNDELIVERED)
    assert Play(S.opened(), S.composed(0.01), S.sent(0.02), undelivered, now=0.2).kinds == {"not_reached": 1}
    no_channel = Play(S.opened(), S.composed(0.01), S.suppressed(0.02, Reason.NO_CHANNEL), now=0.02)
    assert no_channel.kinds == {"not_reached": 1}
    other = S.sent(0.03, channel=Channel.DM, step=1)
    assert Play(S.opened(), S.composed(0.01), S.failed(0.02, final=False), other, now=0.03).kinds == {}


def test_a_next_step_that_does_not_go_out_is_a_persons() -> None:
    play = told().at(1, S.reply(1, "1"), S.composed(1, Purpose.NEXT_STEP), S.remedied(1)).at(1.49)
    assert play.raised == []
    play.at(1.5)
    assert play.kinds == {"not_reached": 1}
    [task] = play.open.values()
    assert task.reason == "the next_step is ready and has not gone out"
    play.at(2, S.sent(2, Purpose.NEXT_STEP))
    assert play.kinds == {}


def test_an_update_that_does_not_go_out_is_a_persons() -> None:
    play = told().at(5, S.updated(5), S.composed(5, Purpose.UPDATE, revision=2)).at(6.99)
    assert play.raised == []
    assert play.at(7).kinds == {"not_reached": 1}
    play.take(S.suppressed(7.1, Reason.SMALL_MOVE, Purpose.UPDATE, revision=2))
    assert play.kinds == {}


def test_an_update_that_waits_for_the_morning_is_given_its_time() -> None:
    """START is 8:00 in Shanghai; quiet from 22:00 to 8:00."""
    morning = 24.0
    assert quiet_until(StoreConfigured(store_id="s"), START + hours(15)) == START + hours(morning)
    play = told().at(15, S.updated(15), S.composed(15, Purpose.UPDATE, revision=2)).at(morning + 1.99)
    assert play.kinds["not_reached"] == 0
    assert play.at(morning + 2).kinds["not_reached"] == 1
    evening = morning - 10.5
    late = told().at(evening, S.updated(evening), S.composed(evening, Purpose.UPDATE, revision=2))
    assert late.at(morning + 1.99).kinds["not_reached"] == 0
    assert late.at(morning + 2).kinds["not_reached"] == 1


def test_a_notice_that_waits_for_a_person_is_watched_from_its_release_on() -> None:
    play = told().at(1, S.reply(1, "1"), S.remedied(1), S.composed(1, Purpose.NEXT_STEP))
    play.take(S.held(1, Reason.MESSAGE_CAP, Purpose.NEXT_STEP)).at(4)
    assert play.kinds == {"held_notice": 1}
    play.take(S.released(4, Purpose.NEXT_STEP)).at(4.49)
    assert play.kinds == {}
    assert play.at(4.5).kinds == {"not_reached": 1}


def test_the_script_of_a_call_is_in_the_notices_language_and_the_stores_day() -> None:
    early = told().take(S.call(0.2))
    assert "可能要晚些发出" in early.open[f"call/{S.notice_id(Purpose.FIRST_CONTACT)}"].reason
    late = Play(S.opened(breached=True), S.composed(0.01), now=0.01).at(0.2, S.sent(0.2), S.call(0.2))
    assert "没能按时发出" in next(iter(late.open.values())).reason
    abroad = Play(S.opened(), S.composed(0.01, language="en", ship_by=74), now=0.01)
    abroad.store = StoreConfigured(store_id=S.store_id, time_zone="America/New_York")
    abroad.at(0.2, S.sent(0.2), S.call(0.2))
    [task] = abroad.open.values()
    there = (START + hours(74)).astimezone(ZoneInfo("America/New_York"))
    assert f"by {there:%B} {there.day}, {there.year} at the latest" in task.reason
    assert there.day != (START + hours(74)).astimezone(ZoneInfo("Asia/Shanghai")).day
    assert "may be sent later" in task.reason


def test_an_important_order_also_gets_a_call_with_a_script() -> None:
    play = told().take(S.call(0.2))
    [task] = play.open.values()
    assert task.kind == "call"
    for words in ("小鱼", "羊绒围巾 雾蓝", "2026年12月15日", "1 继续等待", "2 马上退款"):
        assert words in task.reason
    play.at(1, S.reply(1, "2"))
    assert play.kinds == {}


@pytest.mark.parametrize("paid_back", [False, True], ids=["owed", "paid back"])
@pytest.mark.parametrize("event", [S.order.shipped(1.3), S.resolved(1.3), S.order.delivered(1.3)], ids=lambda e: e.type)
def test_a_refund_that_ships_all_the_same_is_a_persons(event: Event[Any], paid_back: bool) -> None:
    play = told().at(1, S.reply(1, "2"), *([S.remedied(1.2)] if paid_back else [])).at(1.3, event)
    assert play.kinds == {"remedy_failed": 1}
    assert [task.reason for task in play.open.values()] == ["it shipped although a refund was chosen"]
    play.take(S.order.shipped(1.35), S.resolved(1.4))
    assert len(play.raised) == 1


def test_what_can_no_longer_be_had_is_not_chosen() -> None:
    play = told().at(5, S.order.shipped(5), S.resolved(5)).at(6, S.reply(6, "2"))
    assert play.count("remedy.requested") == 0
    assert play.kinds == {"unclear_reply": 1}


def test_a_reply_waits_for_the_notice_that_it_answers() -> None:
    play = Play(S.reply(0.01, "2"), now=0.01)
    assert play.raised == []
    play.take(S.opened(), S.composed(0.005), S.sent(0.006))
    assert play.count("remedy.requested") == 1
    lonely = Play(S.opened(), S.reply(0.01, "2"), now=0.01).at(0.2)
    assert lonely.kinds == {"unclear_reply": 1}


def test_a_reply_never_takes_an_offer_that_did_not_go_out() -> None:
    held = Play(S.opened(), S.composed(0.01), S.held(0.01, Reason.APPROVAL), now=0.01).at(0.1, S.reply(0.1, "退款"))
    assert held.kinds == {"held_notice": 1}
    held.at(0.3)
    assert held.count("remedy.requested") == 0
    assert held.kinds == {"held_notice": 1, "unclear_reply": 1}
    unknown = Play(S.opened(), S.composed(0.01), S.unknown(0.02), now=0.02).at(0.1, S.reply(0.1, "退款"))
    assert unknown.count("remedy.requested") == 1


def test_an_opt_out_is_no_choice_and_needs_nobody() -> None:
    play = told().at(1, S.reply(1, "TD")).at(30)
    assert play.raised == []
    assert play.count("choice.made") == 0


def test_an_opt_out_with_more_than_that_is_a_persons_and_opts_out() -> None:
    play = told().at(1, S.reply(1, "退订，我的包裹呢")).at(30)
    assert play.case.opted_out
    assert play.kinds == {"unclear_reply": 1}
    assert play.count("notice.requested") == 0


def test_a_score_counts_only_while_it_is_asked_for() -> None:
    play = told().at(1, S.reply(1, "5"))
    assert play.kinds == {"unclear_reply": 1}
    assert play.count("satisfaction.scored") == 0


def test_a_disputed_case_is_closed_as_a_complaint_and_asks_nothing() -> None:
    dispute = S.asked(DisputeOpened, 2)
    play = told().at(1, S.reply(1, "2")).at(1.5, dispute, S.remedied(1.5))
    [closed] = play.found("case.closed")
    assert closed.complaint
    assert play.count("notice.requested", purpose=Purpose.SATISFACTION) == 0


def test_a_newer_date_replaces_the_older_promise() -> None:
    play = told().at(20, S.updated(20), S.composed(20, Purpose.UPDATE, revision=2, ship_by=100))
    play.take(S.sent(20, Purpose.UPDATE, revision=2)).at(90)
    assert play.count("promise.broken") == 0
    play.at(100)
    assert play.count("promise.broken", kind="ship_by") == 1


def test_a_reply_for_several_cases_goes_where_its_number_is_open() -> None:
    first, second = told().case, told().case
    second.case_id = "other"
    for notice in second.notices.values():
        notice.options = tuple(o._replace(number=o.number + 2) for o in notice.options)
    at = START + hours(1)
    assert route("2", at, [first, second]) == (S.case_id, False)
    assert route("4", at, [first, second]) == ("other", False)
    assert route("退款", at, [first, second]) == (S.case_id, True)
    assert route("什么?", at, [second, first]) == ("other", False)
