"""What people must do about a case, as its facts stand: `wanted` says all of it anew each time.

What is wanted and was not raised is raised; what was raised and is wanted no more is withdrawn; what a person has done
is not raised again. Tasks of one group are one task for people, with a count: a wave is one task, not ten thousand.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from services.followup.rules.clocks import MARGIN, NEXT_STEP_WITHIN, stages, unknown_due, update_due
from services.followup.rules.facts import Case, Held, Notice
from services.followup.rules.order import Order
from services.followup.rules.promises import proof_at
from services.followup.rules.replies import Meaning
from services.followup.rules.script import script, who
from shared.events.deliveries import Reason
from shared.events.notices import OFFERING, PromiseKind, Purpose, RemedyKind
from shared.events.stores import StoreConfigured

ANSWER_WITHIN: Final = timedelta(hours=1)
CALL_WITHIN: Final = timedelta(hours=2)
REPAIR_WITHIN: Final = timedelta(hours=1)

EXCUSED: Final = frozenset(
    {Reason.REJECTED, Reason.NOT_A_TEST_RECIPIENT, Reason.MODE_OFF, Reason.SHADOW, Reason.ALREADY_TOLD}
)
"""Suppressed like this, a first contact is missed by nobody: a person or the store's mode wanted it so."""
UNREACHABLE: Final = frozenset({Reason.OPTED_OUT, Reason.NO_CHANNEL})
MUST_REACH: Final = frozenset({Purpose.FIRST_CONTACT, Purpose.UPDATE, Purpose.NEXT_STEP})


class Kind(StrEnum):
    UNCLEAR_REPLY = "unclear_reply"
    HELD_NOTICE = "held_notice"
    UNKNOWN_SEND = "unknown_send"
    NOT_REACHED = "not_reached"
    CONTACT_DUE = "contact_due"
    PROMISE_AT_RISK = "promise_at_risk"
    PROMISE_BROKEN = "promise_broken"
    CALL = "call"
    ASKED_FIRST = "asked_first"
    WAVE = "wave"
    UNKNOWN_SENDER = "unknown_sender"
    REMEDY_FAILED = "remedy_failed"
    ASSISTED_SEND = "assisted_send"


class Task(NamedTuple):
    """`key` names it within its case, `group` among all open tasks. `urgency`: 1 a ticket, 2 a page, 3 now."""

    key: str
    kind: Kind
    group: str
    reason: str
    due_at: datetime
    cause: str = ""
    urgency: int = 1


Looks = list[datetime]
"""When time alone could want another task."""


def wanted(case: Case, order: Order, store: StoreConfigured, now: datetime, looks: Looks) -> dict[str, Task]:
    """Every task that this case wants of people now."""
    found = [*_replies(case)]
    if case.incident is not None and case.opened:
        found += _contact(case, now, looks)
        for notice_id, notice in case.notices.items():
            found += _notice(case, notice_id, notice, now, looks)
            found += _under_way(case, notice_id, store, now, looks)
        found += _calls(case, store)
        found += _promises(case)
        found += _remedy(case, order)
        found += _asked(case, order)
    return {task.key: task for task in found}


def _replies(case: Case) -> Iterator[Task]:
    for reply_id, reading in case.readings.items():
        chosen = case.choice.option.code if case.choice is not None else None
        if reading.meaning is Meaning.UNCLEAR:
            reason = reading.reason
        elif reading.meaning is Meaning.CHOICE and reading.code not in {None, chosen} and chosen is not None:
            reason = f"change_of_mind: first {chosen}, now {reading.code}"
        else:
            continue
        due_at = case.replies[reply_id].received_at + ANSWER_WITHIN
        yield _own(case, Kind.UNCLEAR_REPLY, reply_id, reason, due_at)


def _contact(case: Case, now: datetime, looks: Looks) -> Iterator[Task]:
    """The first contact that is not out yet."""
    incident = case.incident
    assert incident is not None
    if case.told or incident.how is not None or case.choice is not None or case.closed is not None or _excused(case):
        return
    reached = [stage for stage in stages(incident.detected_at, incident.contact_due_at) if stage.at <= now]
    looks += [stage.at for stage in stages(incident.detected_at, incident.contact_due_at) if stage.at > now]
    if reached:
        stage = reached[-1]
        yield Task(
            f"{Kind.CONTACT_DUE}/{case.opened_revision}",
            Kind.CONTACT_DUE,
            _wave(case, Kind.CONTACT_DUE, incident.cause),
            stage.reason,
            incident.contact_due_at,
            incident.cause,
            stage.urgency,
        )


def _excused(case: Case) -> bool:
    offers = case.offers
    last = offers[-1][1].suppressed if offers else None
    return last is not None and last.reason in EXCUSED


def _notice(case: Case, notice_id: str, notice: Notice, now: datetime, looks: Looks) -> Iterator[Task]:
    incident = case.incident
    assert incident is not None
    contact_due_at = incident.contact_due_at if notice.purpose in OFFERING else None
    for step, at in notice.open_unknowns.items():
        if notice.purpose is Purpose.SATISFACTION:
            continue  # a question that got lost is missed by nobody
        raise_at = unknown_due(at, contact_due_at)
        if now >= raise_at:
            due_at = contact_due_at if contact_due_at and contact_due_at > at else raise_at + MARGIN
            reason = f"nobody knows whether the {notice.purpose} by {step.partition(':')[2] or 'a channel'} went out"
            yield _own(case, Kind.UNKNOWN_SEND, f"{notice_id}/{step}", reason, due_at)
        else:
            looks.append(raise_at)
    # An offer about what is over reaches nobody any more, and need not.
    if incident.how is not None and notice.purpose in OFFERING:
        return
    held = notice.waiting
    if held is not None:
        due_at = contact_due_at or held.at + CALL_WITHIN
        yield _held(case, notice_id, held, due_at)
    ended = notice.final or notice.suppressed
    lost = notice.final is not None or (notice.suppressed is not None and notice.suppressed.reason in UNREACHABLE)
    if ended is not None and lost and not notice.arrived and notice.purpose in MUST_REACH:
        reason = f"the {notice.purpose} reached nobody: {ended.detail or ended.reason or 'no channel is left'}"
        yield _own(case, Kind.NOT_REACHED, notice_id, reason, contact_due_at or ended.at + CALL_WITHIN)


def _under_way(case: Case, notice_id: str, store: StoreConfigured, now: datetime, looks: Looks) -> Iterator[Task]:
    """What follows the first contact (which has clocks of its own) and is ready, but does not go out."""
    notice, incident = case.notices[notice_id], case.incident
    since = notice.under_way_since
    assert incident is not None
    if since is None or case.closed is not None or case.by_person is not None:
        return
    if notice.purpose is Purpose.NEXT_STEP:
        raise_at = since + NEXT_STEP_WITHIN
    elif notice.purpose is Purpose.UPDATE and incident.how is None:
        raise_at = update_due(since, store)
    else:
        return
    if now < raise_at:
        looks.append(raise_at)
        return
    reason = f"the {notice.purpose} is ready and has not gone out"
    yield _own(case, Kind.NOT_REACHED, f"{notice_id}/under_way", reason, raise_at + ANSWER_WITHIN)


def _held(case: Case, notice_id: str, held: Held, due_at: datetime) -> Task:
    assert case.incident is not None
    reason, cause = held.detail or str(held.reason or "held"), case.incident.cause
    if held.assisted:
        return _own(case, Kind.ASSISTED_SEND, notice_id, reason, due_at)
    if held.reason is Reason.ASKED_FIRST:
        return _own(case, Kind.ASKED_FIRST, notice_id, reason, due_at)
    if held.reason is Reason.WAVE:
        return Task(f"{Kind.WAVE}/{notice_id}", Kind.WAVE, _wave(case, Kind.WAVE, ""), reason, due_at, cause)
    group = _wave(case, Kind.HELD_NOTICE, f"{cause}/{held.reason or ''}")
    return Task(f"{Kind.HELD_NOTICE}/{notice_id}", Kind.HELD_NOTICE, group, reason, due_at, cause)


def _calls(case: Case, store: StoreConfigured) -> Iterator[Task]:
    if "call_after_broken" in case.acts:
        reason = f"a promise was broken: call {who(case)} about {case.incident.product if case.incident else ''}"
        yield _own(case, Kind.CALL, "after_broken", reason, case.acts["call_after_broken"] + CALL_WITHIN)
    incident = case.incident
    assert incident is not None
    if incident.how is not None or case.choice is not None:
        return
    for notice_id, call in case.calls.items():
        yield _own(case, Kind.CALL, notice_id, script(case, notice_id, store), max(call.at, incident.contact_due_at))


def _promises(case: Case) -> Iterator[Task]:
    for identity, entry in case.ledger.items():
        if entry.state == "at_risk":
            reason = f"{entry.kind} is due at {entry.due_at:%Y-%m-%d %H:%M} UTC: {entry.text}"
            task = _own(case, Kind.PROMISE_AT_RISK, identity, reason, entry.due_at)
            if entry.kind is PromiseKind.SHIP_BY:
                # Whoever can still ship a wave in time needs its list, not one task an order.
                group = _wave(case, Kind.PROMISE_AT_RISK, f"{task.cause}/{entry.due_at:%Y-%m-%dT%H}")
                task = task._replace(group=group)
            yield task
        elif entry.state == "broken":
            reason = f"{entry.kind} was due at {entry.due_at:%Y-%m-%d %H:%M} UTC: {entry.text}"
            yield _own(case, Kind.PROMISE_BROKEN, identity, reason, entry.due_at + REPAIR_WITHIN, urgency=2)


def _remedy(case: Case, order: Order) -> Iterator[Task]:
    if case.choice is None:
        return
    done = case.remedy is not None and case.remedy.done
    if case.remedy is not None and not case.remedy.done:
        reason = f"the order system could not do the {case.choice.option.code}"
        if case.remedy.detail:
            reason += f": {case.remedy.detail}"
        yield _own(case, Kind.REMEDY_FAILED, "remedy", reason, case.remedy.at + REPAIR_WITHIN, urgency=2)
    shipped = order.shipped_at(case) or proof_at(case, order)
    if case.choice.option.code is RemedyKind.REFUND and shipped and (not done or shipped > case.choice.at):
        reason = "it shipped although a refund was chosen"
        yield _own(case, Kind.REMEDY_FAILED, "shipped", reason, shipped + REPAIR_WITHIN, urgency=2)


def _asked(case: Case, order: Order) -> Iterator[Task]:
    """Who was told, and turned to the shop instead of answering: somebody must see what they want."""
    told, incident = case.contacted_at, case.incident
    assert incident is not None
    if told is None or incident.how is not None or case.choice is not None or case.closed is not None:
        return
    for name, asked in order.asked_after(told).items():
        reason = f"the customer {asked.what} after our message, and has chosen nothing: see what they want"
        yield _own(case, Kind.ASKED_FIRST, name, reason, asked.at + ANSWER_WITHIN)


def _own(case: Case, kind: Kind, name: str, reason: str, due_at: datetime, *, urgency: int = 1) -> Task:
    """A task of this case alone; several of one kind are one task."""
    cause = case.incident.cause if case.incident is not None else ""
    return Task(f"{kind}/{name}", kind, f"{kind}/{case.case_id}", reason, due_at, cause, urgency)


def _wave(case: Case, kind: Kind, cause: str) -> str:
    return group_of(kind, case.store_id or "", str(case.scenario or ""), cause)


def group_of(kind: Kind, store_id: str, scenario: str, cause: str = "") -> str:
    """The one open task that all cases of a wave share."""
    return f"{kind}/{store_id}/{scenario}/{cause}"
