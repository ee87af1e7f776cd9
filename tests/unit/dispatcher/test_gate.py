"""The gate, stage by stage and in its order."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.dispatcher.rules.gate import Hold, Send, Spent, Suppress, Wait, gate
from services.dispatcher.rules.state import IncidentState, Step, StepState, Try
from shared.events.deliveries import Channel, Reason
from shared.events.notices import NoticeHold, Purpose
from shared.events.stores import Caps, Mode, default_store
from tests.component.dispatcher.rig import NOON, hours
from tests.unit.dispatcher.cases import PHONE, look, notice

TOLD = IncidentState(revision=2, seen_at=NOON, told_at=NOON, told_date=NOON + hours(72), told_by="another")
BROKEN = NoticeHold(reason="no date", must="date")


def store(**fields: Any) -> Any:
    return default_store("shop-1", **fields)


CASES: list[tuple[str, dict[str, Any], type[Any], Reason | None]] = [
    ("nothing stands against it", {}, Send, None),
    ("off", {"mode": Mode.OFF}, Suppress, Reason.MODE_OFF),
    ("shadow", {"mode": Mode.SHADOW}, Suppress, Reason.SHADOW),
    ("a broken must", {"notice": notice(hold=BROKEN)}, Hold, Reason.MUST_BROKEN),
    ("its date has passed", {"now": NOON + hours(72)}, Hold, Reason.MUST_BROKEN),
    ("over", {"incident": IncidentState(2, resolved="shipped")}, Suppress, Reason.RESOLVED),
    ("a newer revision", {"incident": IncidentState(2)}, Suppress, Reason.SUPERSEDED),
    ("its incident has not come", {"incident": IncidentState()}, Wait, None),
    ("perhaps told already", {"incident": IncidentState(1, unknown_by=["another"])}, Hold, Reason.TIMED_OUT),
    ("asked first", {"asked_first": NOON}, Hold, Reason.ASKED_FIRST),
    ("opted out", {"opted_out": frozenset({PHONE.recipient})}, Suppress, Reason.OPTED_OUT),
    ("opted out from the number", {"opted_out": frozenset({PHONE.reply_key})}, Suppress, Reason.OPTED_OUT),
    ("the order shipped", {"over": "shipped"}, Suppress, Reason.RESOLVED),
    ("test recipients", {"store": store(test_recipients=("ff" * 16,))}, Suppress, Reason.NOT_A_TEST_RECIPIENT),
    ("a test recipient", {"store": store(test_recipients=(PHONE.recipient,))}, Send, None),
    ("stopped", {"stop": "stopped"}, Wait, Reason.STOPPED),
    ("the detector holds", {"incident": IncidentState(1, hold="feed_stale")}, Hold, Reason.FEED_STALE),
    ("a wave", {"wave": "many"}, Hold, Reason.WAVE),
    ("a dropped wave", {"dropped": True}, Suppress, Reason.REJECTED),
    ("from before the start", {"store": store(live_from=NOON + hours(1))}, Hold, Reason.LATE_START),
    ("came after its limit", {"incident": IncidentState(1, seen_at=NOON + hours(3))}, Hold, Reason.LATE_START),
    ("approve", {"mode": Mode.APPROVE}, Hold, Reason.APPROVAL),
    ("a new store", {"mode": Mode.APPROVE, "known": False}, Hold, Reason.NEW_STORE),
    ("ramp begins", {"mode": Mode.RAMP}, Hold, Reason.RAMP),
    ("ramp is through", {"mode": Mode.RAMP, "spent": Spent(template=500)}, Send, None),
    ("message cap", {"store": store(caps=Caps(messages=3)), "spent": Spent(messages=2)}, Hold, Reason.MESSAGE_CAP),
    ("under the cap", {"store": store(caps=Caps(messages=4)), "spent": Spent(messages=2)}, Send, None),
    (
        "the first days",
        {"store": store(live_from=NOON - hours(71)), "spent": Spent(messages=499)},
        Hold,
        Reason.MESSAGE_CAP,
    ),
    ("after the first days", {"store": store(live_from=NOON - hours(73)), "spent": Spent(messages=499)}, Send, None),
    (
        "money cap",
        {
            "store": store(caps=Caps(money=Decimal(10))),
            "spent": Spent(money=Decimal(1)),
            "notice": notice(money_reserved="9.50"),
        },
        Hold,
        Reason.MONEY_CAP,
    ),
    ("not its turn", {"busy": True}, Wait, None),
    ("an old view", {"stale": True}, Hold, Reason.STALE_VIEW),
]


@pytest.mark.parametrize(("name", "changes", "kind", "reason"), CASES, ids=[c[0] for c in CASES])
def test_each_stage(name: str, changes: dict[str, Any], kind: type[Any], reason: Reason | None) -> None:
    decision = gate(look(**changes))
    assert isinstance(decision, kind)
    if reason is not None:
        assert getattr(decision, "reason", None) is reason
        assert getattr(decision, "words", "")


@pytest.mark.parametrize(
    ("purpose", "moved", "reason"),
    [
        (Purpose.FIRST_CONTACT, 0, Reason.ALREADY_TOLD),
        (Purpose.FIRST_CONTACT, 3, Reason.SMALL_MOVE),
        (Purpose.UPDATE, 0, Reason.SMALL_MOVE),
        (Purpose.UPDATE, 11.9, Reason.SMALL_MOVE),
        (Purpose.UPDATE, -11.9, Reason.SMALL_MOVE),
        (Purpose.UPDATE, 12, None),
        (Purpose.UPDATE, -20, None),
    ],
)
def test_who_was_told_is_told_again_only_of_a_real_move(purpose: Purpose, moved: float, reason: Reason | None) -> None:
    given = notice(purpose, 2, told_date=NOON + hours(72 + moved))
    decision = gate(look(purpose, 2, notice=given, incident=TOLD))
    assert getattr(decision, "reason", None) is reason


def test_an_update_to_someone_never_told_is_sent_and_good_news_is_not() -> None:
    assert isinstance(gate(look(Purpose.UPDATE)), Send)
    over = IncidentState(1, resolved="shipped")
    never = gate(look(Purpose.GOOD_NEWS, incident=over))
    assert isinstance(never, Suppress)
    assert never.reason is Reason.NEVER_TOLD
    over.unknown_by = ["another"]
    assert isinstance(gate(look(Purpose.GOOD_NEWS, incident=over)), Send)


def test_after_good_news_the_same_date_is_news_again() -> None:
    incident = replace(TOLD, told_by=None)
    assert isinstance(gate(look(Purpose.UPDATE, 2, incident=incident)), Send)


def test_the_rest_of_a_notice_that_was_told_by_itself_still_goes() -> None:
    given = notice()
    mine = IncidentState(1, told_at=NOON, told_date=given.data.told_date, told_by=given.data.notice_id)
    assert isinstance(gate(look(notice=given, incident=mine, asked_first=NOON + timedelta(minutes=1))), Send)


@pytest.mark.parametrize("purpose", [Purpose.NEXT_STEP, Purpose.SATISFACTION, Purpose.CORRECTION])
def test_what_follows_a_choice_goes_by_itself(purpose: Purpose) -> None:
    over = IncidentState(1, resolved="refunded", hold="wave")
    given = notice(purpose, told_date=None)
    assert isinstance(
        gate(look(purpose, notice=given, incident=over, mode=Mode.APPROVE, wave="many", over="refunded")), Send
    )


def test_a_persons_release_passes_what_persons_decide_and_nothing_else() -> None:
    given = notice()
    given.progress.released_by = "chen"
    full = store(caps=Caps(messages=0, money=Decimal(0)), live_from=NOON + hours(1))
    decided = look(
        notice=given,
        mode=Mode.APPROVE,
        store=full,
        wave="many",
        asked_first=NOON,
        incident=IncidentState(1, hold="feed_stale", seen_at=NOON + hours(9)),
    )
    assert isinstance(gate(decided), Send)
    assert isinstance(gate(look(notice=given, over="shipped")), Suppress)
    assert isinstance(gate(look(notice=given, stop="stopped")), Wait)
    assert isinstance(gate(look(notice=given, mode=Mode.OFF)), Suppress)
    late = gate(look(notice=given, now=NOON + hours(73)))
    assert isinstance(late, Hold)
    assert (late.reason, late.releasable) == (Reason.MUST_BROKEN, False)
    broken = notice(hold=BROKEN)
    broken.progress.released_by = "chen"
    assert gate(look(notice=broken)) == Hold(Reason.MUST_BROKEN, "no date", releasable=False)


def test_a_final_word_counts_before_a_hold() -> None:
    decision = gate(look(mode=Mode.APPROVE, wave="many", asked_first=NOON, over="delivered"))
    assert isinstance(decision, Suppress)


def test_what_has_started_is_past_the_caps() -> None:
    given = notice()
    given.progress.tries.append(Try(NOON, 1, 1, "sandbox-dm", Channel.DM))
    assert isinstance(gate(look(notice=given, store=store(caps=Caps(messages=0)))), Send)


def test_reminders_are_for_who_has_not_answered() -> None:
    assert isinstance(gate(look(Purpose.REMINDER)), Send)
    answered = gate(look(Purpose.REMINDER, incident=IncidentState(1, answered=True)))
    assert isinstance(answered, Suppress)
    assert answered.reason is Reason.ANSWERED


def test_nor_for_who_has_applied_or_asked_since() -> None:
    told = IncidentState(1, told_at=NOON, told_by="another")
    since = gate(look(Purpose.REMINDER, incident=told, asked_last=NOON + hours(1)))
    assert isinstance(since, Suppress)
    assert since.reason is Reason.ANSWERED
    assert isinstance(gate(look(Purpose.REMINDER, incident=told, asked_last=NOON - hours(1))), Send)


def test_good_news_is_news_only_while_it_is_true() -> None:
    told = replace(TOLD, revision=1)
    assert isinstance(gate(look(Purpose.GOOD_NEWS, incident=told, over="shipped")), Send)
    for changes in (
        {"incident": TOLD},
        {"incident": told, "over": "cancelled"},
        {"incident": told, "over": "refunded"},
    ):
        assert isinstance(gate(look(Purpose.GOOD_NEWS, notice=notice(Purpose.GOOD_NEWS), **changes)), Suppress)


def test_the_next_step_of_who_waits_ends_with_the_order_and_with_its_date() -> None:
    assert isinstance(gate(look(Purpose.NEXT_STEP)), Send)
    assert isinstance(gate(look(Purpose.NEXT_STEP, over="shipped")), Suppress)
    assert isinstance(gate(look(Purpose.NEXT_STEP, now=NOON + hours(72))), Hold)
    refund = notice(Purpose.NEXT_STEP, told_date=None)
    assert isinstance(gate(look(Purpose.NEXT_STEP, notice=refund, over="shipped", now=NOON + hours(99))), Send)


@pytest.mark.parametrize(("moved", "kind"), [(3, Send), (24, Suppress)])
def test_the_rest_of_a_notice_falls_only_for_one_that_names_another_day(moved: float, kind: type[Any]) -> None:
    given = notice()
    given.progress.steps[1] = Step(StepState.SENT)
    mine = IncidentState(2, told_at=NOON, told_date=given.data.told_date, told_by=given.data.notice_id)
    mine.new_date = NOON + hours(72 + moved)
    assert isinstance(gate(look(notice=given, incident=mine)), kind)


def test_the_rest_of_a_notice_whose_date_has_passed_falls() -> None:
    given = notice()
    given.progress.steps[1] = Step(StepState.SENT)
    assert isinstance(gate(look(notice=given, now=NOON + hours(72))), Suppress)
