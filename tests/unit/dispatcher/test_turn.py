"""A notice's turns from its coming to its end, by values alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.dispatcher.channels.port import Failed, Outcome, ReceiptState, Sent, Unknown
from services.dispatcher.channels.sandbox import DM, FEATURES, SMS
from services.dispatcher.rules import outcome, turn
from services.dispatcher.rules.backoff import Backoff
from services.dispatcher.rules.gate import Look
from services.dispatcher.rules.plan import Ways
from services.dispatcher.rules.state import IncidentState, Notice, State, StepState
from shared.events.deliveries import Reason
from shared.events.stores import Mode
from tests.component.dispatcher.rig import NOON, hours
from tests.unit.dispatcher.cases import LEASE, PHONE, WAYS, look, notice


def kinds(events: list[Any]) -> list[str]:
    return [e.type.removeprefix("notice.").removesuffix(".v1") for e in events]


def settle(given: Look, index: int, result: Outcome, at: float = 0) -> list[str]:
    now = NOON + hours(at)
    return kinds(outcome.settle(given.notice, given.incident, index, result, now, backoff=Backoff()))


def test_both_steps_are_claimed_at_once_and_each_is_told() -> None:
    given = look()
    taken = turn.take(given, WAYS, LEASE)
    assert {i: c.provider for i, c in taken.claims.items()} == {0: SMS, 1: DM}
    assert (given.notice.state, given.notice.claimed_until) == (State.CLAIMED, NOON + LEASE)
    assert settle(given, 0, Sent("x")) == ["sent"]
    assert given.notice.state is State.CLAIMED
    assert settle(given, 1, Sent()) == ["sent"]
    assert (given.notice.state, given.notice.claimed_until, given.notice.open) == (State.SENT, None, False)
    assert given.incident.told_at == NOON
    assert given.incident.reached == ["sms", "dm"]
    # Once answered, another answer to the same call changes nothing.
    assert settle(given, 0, Unknown("late")) == []


def test_an_unknown_outcome_is_never_claimed_again() -> None:
    given = look()
    turn.take(given, WAYS, LEASE)
    settle(given, 0, Unknown("no answer"))
    settle(given, 1, Unknown("no answer"))
    for step in range(5):
        later = replace(given, now=NOON + hours(step))
        assert turn.take(later, WAYS, LEASE).claims == {}
    assert (given.notice.state, given.notice.reason) == (State.UNKNOWN, Reason.TIMED_OUT)
    assert given.incident.unknown_by == [given.notice.data.notice_id]


def test_a_failure_is_tried_again_after_a_pause_and_given_up_at_the_limit() -> None:
    given = look()
    turn.take(given, WAYS, LEASE)
    assert settle(given, 0, Failed("busy", retry_after=30)) == []
    assert settle(given, 1, Sent()) == ["sent"]
    soon = replace(given, now=NOON + timedelta(seconds=29))
    assert turn.take(soon, WAYS, LEASE).claims == {}
    assert given.notice.wake_at == NOON + timedelta(seconds=30)
    then = replace(given, now=NOON + timedelta(seconds=30))
    again = turn.take(then, WAYS, LEASE)
    assert list(again.claims) == [0]
    assert not again.first
    assert given.notice.progress.steps[0].attempt == 2
    assert settle(given, 0, Failed("busy"), at=2) == ["failed"]
    assert turn.take(replace(given, now=NOON + hours(2)), WAYS, LEASE).claims == {}
    assert given.notice.progress.steps[0].state is StepState.FAILED
    assert given.notice.state is State.SENT


def test_a_permanent_failure_has_the_next_channel_at_once_and_the_last_one_is_final() -> None:
    two = Ways({"a": FEATURES[SMS], "b": FEATURES[SMS]})
    given = look(notice=notice(texts={"sms": "x"}))
    first = turn.take(given, two, LEASE)
    assert first.claims[0].provider == "a"
    assert settle(given, 0, Failed("no such number", permanent=True)) == ["failed"]
    second = turn.take(given, two, LEASE)
    assert second.claims[0].provider == "b"
    settle(given, 0, Failed("no such number", permanent=True))
    last = turn.take(given, two, LEASE)
    assert kinds(last.events) == ["failed"]
    assert last.events[0].data.final
    assert given.notice.state is State.FAILED


def test_an_undelivered_message_is_not_sent_to_the_same_recipient_again() -> None:
    two = Ways({"a": FEATURES[SMS], "b": FEATURES[SMS]})
    given = look(notice=notice(texts={"sms": "x"}))
    turn.take(given, two, LEASE)
    settle(given, 0, Sent())
    told = outcome.receipt(given.notice, given.incident, 0, NOON, state=ReceiptState.FAILED, detail="switched off")
    assert kinds(told) == ["failed"]
    assert turn.take(given, two, LEASE).claims == {}
    assert given.notice.reason is Reason.UNDELIVERED


def test_receipts_in_any_order_and_number_end_the_same() -> None:
    given = look()
    turn.take(given, WAYS, LEASE)
    settle(given, 0, Unknown("no answer"))
    settle(given, 1, Sent())

    def receipt(state: ReceiptState) -> list[str]:
        return kinds(outcome.receipt(given.notice, given.incident, 0, NOON, state=state, detail=""))

    assert receipt(ReceiptState.DELIVERED) == ["sent", "delivered"]
    assert receipt(ReceiptState.DELIVERED) == []
    assert receipt(ReceiptState.ACCEPTED) == []
    assert receipt(ReceiptState.FAILED) == []
    assert given.incident.unknown_by == []


def test_what_is_held_goes_on_by_itself_after_a_wave_only() -> None:
    held = look(mode=Mode.APPROVE)
    assert kinds(turn.take(held, WAYS, LEASE).events) == ["held"]
    assert turn.take(held, WAYS, LEASE).events == []
    assert turn.take(replace(held, mode=Mode.LIVE), WAYS, LEASE).claims == {}
    assert held.notice.state is State.HELD
    wave = look(wave="many")
    assert kinds(turn.take(wave, WAYS, LEASE).events) == ["held"]
    assert len(turn.take(replace(wave, wave=None), WAYS, LEASE).claims) == 2


def test_another_offer_waits_until_it_is_known_whether_the_first_one_went_out() -> None:
    first = look()
    turn.take(first, WAYS, LEASE)
    settle(first, 0, Unknown("no answer"))
    settle(first, 1, Unknown("no answer"))
    incident = first.incident
    incident.revision = 2
    second = look(revision=2, incident=incident, notice=notice(revision=2, told_date=NOON + hours(96)))
    assert kinds(turn.take(second, WAYS, LEASE).events) == ["held"]
    assert (second.notice.reason, second.notice.releasable) == (Reason.TIMED_OUT, True)
    outcome.receipt(first.notice, incident, 0, NOON, state=ReceiptState.DELIVERED, detail="")
    assert len(turn.take(second, WAYS, LEASE).claims) == 2


def test_the_rest_is_dropped_in_silence_once_a_part_has_gone_and_told_where_nothing_has() -> None:
    given = look()
    turn.take(given, WAYS, LEASE)
    settle(given, 0, Failed("busy"))
    settle(given, 1, Sent())
    assert turn.take(replace(given, over="shipped"), WAYS, LEASE).events == []
    assert (given.notice.state, given.notice.open) == (State.SENT, False)
    other = look()
    turn.take(other, WAYS, LEASE)
    settle(other, 0, Failed("busy"))
    settle(other, 1, Failed("busy"))
    assert kinds(turn.take(replace(other, over="shipped"), WAYS, LEASE).events) == ["suppressed"]
    assert other.notice.state is State.SUPPRESSED


def test_an_important_order_gets_one_call_for_life() -> None:
    given = look(notice=notice(important=True))
    assert turn.take(given, WAYS, LEASE).call
    again = look(notice=notice(important=True, revision=2), incident=replace_revision(given.incident))
    assert not turn.take(again, WAYS, LEASE).call


def replace_revision(incident: IncidentState) -> IncidentState:
    return replace(incident, revision=2)


def test_ids_of_what_is_told_are_all_different() -> None:
    given: Notice = notice()
    incident = IncidentState(1, seen_at=NOON)
    turn.take(look(notice=given, incident=incident), WAYS, LEASE)
    events = [
        *outcome.settle(given, incident, 0, Unknown("x"), NOON, backoff=Backoff()),
        *outcome.settle(given, incident, 1, Sent(), NOON, backoff=Backoff()),
        *outcome.sent_by_person(given, incident, "chen", NOON),
    ]
    assert len({e.id for e in events}) == 3
    assert PHONE.to not in str(events)
