"""The life of a case: from its facts and the time to what must be told, done and looked at again.

open (nobody was told) → told → chosen → remedied → closed; each step can be left out. `settle` is the only function
that moves a case. It does each deed once, whatever order the facts came in: deeds are kept in `acts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from services.followup.rules import announce, promises, tasks
from services.followup.rules.clocks import DELIVERY_WITHIN, GRACE, QUESTION_WITHIN, REMIND_AFTER, SETTLE
from services.followup.rules.facts import Case, Choice, Closed, Offered, Reply
from services.followup.rules.order import Order
from services.followup.rules.replies import Meaning, Reading, read
from services.followup.rules.tasks import Kind, Task
from shared.events.cases import ClosedAs
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.notices import Purpose, RemedyKind
from shared.events.stores import StoreConfigured

GONE: Final = frozenset({How.SHIPPED, How.DELIVERED, How.CANCELLED, How.REFUNDED})
"""Ends of an incident after which no option can be had any more."""


@dataclass(slots=True)
class Outcome:
    """What to emit, in order; which tasks to raise or withdraw; whose promises changed; when to look again."""

    emits: list[Event[Any]] = field(default_factory=list)
    raised: list[Task] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    promises: list[str] = field(default_factory=list)
    look_at: datetime | None = None


def settle(
    case: Case, order: Order, now: datetime, watched: bool = False, store: StoreConfigured | None = None
) -> Outcome:
    """Bring the case to where its facts have it at `now`. `watched`: its store's mode lets a case open. `store` is as
    it is set up, if it is."""
    out, looks = Outcome(), tasks.Looks()
    if case.incident is not None:
        _open(case, out, now, watched)
    _read_replies(case, order, out, now, looks)
    if case.incident is not None and case.opened:
        _choose(case, out, now)
        _keep_promises(case, order, out, now, looks)
        _remind(case, order, out, now, looks)
        _finish(case, order, out, now, looks)
    store = store or StoreConfigured(store_id=case.store_id or "?")
    _ask_people(case, order, out, now, looks, store=store)
    out.look_at = min((t for t in looks if t > now), default=None)
    return out


def state_of(case: Case) -> str:
    """The word for where it stands, for lists."""
    if case.closed is not None:
        return "closed"
    if case.choice is not None:
        return "remedied" if case.remedy is not None and case.remedy.done else "chosen"
    return "told" if case.told else "open"


def open_options(case: Case, notice_id: str | None = None, *, unsent: bool = False) -> dict[int, tuple[str, Offered]]:
    """The options by number, each with the notice that offers it: the newest, or `notice_id` where it has one. Those of
    a notice that never went out count for a person (`unsent`), never for a reply."""
    found: dict[int, tuple[str, Offered]] = {}
    named = [(notice_id, case.notices[notice_id])] if notice_id in case.notices else []
    for identity, notice in [*case.offers, *named]:
        if notice.out or unsent:
            found.update({o.number: (identity, o) for o in notice.options})
    return found


def _open(case: Case, out: Outcome, now: datetime, watched: bool) -> None:
    if case.closed is not None and (
        case.opened_revision > case.closed.revision or (case.closed.closed_as is ClosedAs.WITHDRAWN and case.told)
    ):
        case.closed = None  # opened again; or somebody was told after all
    if case.opened_revision and not case.opened and (watched or case.told):
        case.acts[f"opened/{case.opened_revision}"] = now
        out.emits.append(announce.opened(case, now))


# ---- replies and the choice


def _read_replies(case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks) -> None:
    for reply_id, reply in sorted(case.replies.items(), key=lambda one: (one[1].received_at, one[0])):
        if reply_id in case.readings:
            continue
        until = reply.seen_at + GRACE
        if now < until and _incomplete(case, reply):
            looks.append(until)
            continue
        reading = _reading(case, order, reply)
        case.readings[reply_id] = reading
        if reading.meaning is Meaning.SCORE and case.score is None:
            assert reading.number is not None
            case.score = reading.number
            out.emits.append(announce.scored(case, reading.number, reply.text, reply.received_at, now))
        elif reading.meaning is Meaning.CHOICE and case.choice is None:
            assert reading.number is not None
            notice_id, option = open_options(case, reply.notice_id)[reading.number]
            case.choice = Choice(reply.received_at, notice_id, option, reply_id, reply.by)


def _incomplete(case: Case, reply: Reply) -> bool:
    """Whether what the reply answers is likely still on its way to us."""
    if case.incident is None or not case.opened or not open_options(case):
        return True
    if reply.notice_id is not None and reply.notice_id not in case.notices:
        return True
    return "satisfaction" in case.acts and not any(n.over for n in _questions(case))


def _reading(case: Case, order: Order, reply: Reply) -> Reading:
    options = {n: offered.code for n, (_, offered) in open_options(case, reply.notice_id).items()}
    if case.incident is None or not case.opened:
        options = {}
    asked = any(
        at <= reply.received_at for n in _questions(case) for at in (n.sent_at, *n.unknown.values()) if at is not None
    )
    settled = case.choice is not None or case.closed is not None
    if reply.ambiguous:
        return Reading(Meaning.UNCLEAR, None, "it fits more than one case of this customer")
    reading = read(reply.text, options, scoring=asked and case.score is None, settled=settled)
    if reading.meaning is Meaning.CHOICE and case.choice is None and (why := _too_late(case, order, reply)):
        return Reading(Meaning.UNCLEAR, None, why)
    return reading


def _too_late(case: Case, order: Order, reply: Reply) -> str:
    incident = case.incident
    ends = [order.shipped_at(case), order.delivered_at(case), order.cancelled_at(case), order.refunded_at(case)]
    if incident is not None and incident.how in GONE:
        ends.append(incident.resolved_at)
    if any(at is not None and at <= reply.received_at for at in ends):
        return "it chooses what can no longer be had: the order has moved on"
    if case.closed is not None or case.by_person is not None:
        return "the case is closed, or a person has it"
    return ""


def route(text: str, received_at: datetime, cases: Sequence[Case]) -> tuple[str, bool]:
    """Which of these cases (the most likely first) a reply is about, and whether it might be another just as well: the
    one where it chooses or scores. One that chooses nothing anywhere belongs to the first."""
    reply = Reply(received_at, received_at, text, None, None)
    open_ones = [case for case in cases if case.choice is None and case.closed is None]
    for those in (open_ones, cases):
        fits = [c for c in those if _reading(c, Order(), reply).meaning in {Meaning.CHOICE, Meaning.SCORE}]
        if fits:
            return fits[0].case_id, len(fits) > 1
    return cases[0].case_id, False


def _questions(case: Case) -> list[Any]:
    return [n for n in case.notices.values() if n.purpose is Purpose.SATISFACTION]


def _choose(case: Case, out: Outcome, now: datetime) -> None:
    """The choice's deeds, once: it is told, its remedy is asked for, its next step is written."""
    if case.choice is None or "choice" in case.acts:
        return
    case.acts["choice"] = now
    out.emits.append(announce.chosen(case, case.choice, now))
    out.emits.append(announce.remedy(case, case.choice, now))
    out.emits.append(announce.requested(case, Purpose.NEXT_STEP, now))


# ---- promises, the reminder


def _keep_promises(case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks) -> None:
    known = set(case.ledger)
    changed, look = promises.settle(case, order, now)
    if look is not None:
        looks.append(look)
    out.promises = [*changed, *(identity for identity in case.ledger if identity not in known | set(changed))]
    for identity in changed:
        entry = case.ledger[identity]
        if entry.state in {"kept", "broken"}:
            out.emits.append(announce.promise(case, identity, entry, now))
        if entry.state == "broken":
            reason = f"a promise was broken ({entry.kind}): {entry.reason}"
            out.emits.append(announce.escalated(case, Kind.PROMISE_BROKEN, identity, reason, now))


def _remind(case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks) -> None:
    """One reminder, 24 h after the first `Sent`, to who has not said a word, here or to the shop."""
    told = case.contacted_at
    if told is None or "reminder" in case.acts or case.replies or case.choice is not None or case.closed is not None:
        return
    assert case.incident is not None
    if case.opted_out or case.incident.how is not None or order.shipped or order.delivered or order.asked_after(told):
        return
    if now < told + REMIND_AFTER:
        looks.append(told + REMIND_AFTER)
        return
    case.acts["reminder"] = now
    out.emits.append(announce.requested(case, Purpose.REMINDER, now))


# ---- the end


def _finish(case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks) -> None:
    if case.closed is not None:
        return
    ending = _ending(case, order, now, looks)
    if ending is None:
        return
    closed_as, asks = ending
    if any(entry.pending for entry in case.ledger.values()):
        return  # their own times look again
    if asks and not _asked(case, order, out, now, looks):
        return
    assert case.incident is not None
    case.closed = Closed(now, closed_as, case.incident.revision)
    out.emits.append(announce.closed(case, case.closed, order.disputed_at is not None, now))


def _ending(case: Case, order: Order, now: datetime, looks: tasks.Looks) -> tuple[ClosedAs, bool] | None:
    """How the case ends and whether the satisfaction question comes first; None while it goes on."""
    incident = case.incident
    assert incident is not None
    code = case.choice.option.code if case.choice is not None else None
    if case.by_person is not None:
        return ClosedAs.BY_PERSON, False
    if code not in {None, RemedyKind.WAIT}:
        done = (case.remedy is not None and case.remedy.done) or order.refunded_at(case) is not None
        return (ClosedAs.REMEDIED, True) if done else None
    if code is None and not case.told and incident.how is not None:
        return _withdrawn(case, now, looks)
    if promises.cancelled(case, order):
        return ClosedAs.CANCELLED, False
    if incident.how is How.REFUNDED or order.refunded_at(case) is not None:
        return ClosedAs.REFUNDED, False
    shipped = promises.shipped_at(case, order, now)
    if shipped is None:
        proof = promises.proof_at(case, order)
        looks += [] if proof is None else [proof + GRACE]
        return None
    if order.delivered_at(case) is not None or incident.how is How.DELIVERED:
        return ClosedAs.SHIPPED, case.told
    if now >= shipped + DELIVERY_WITHIN:
        return ClosedAs.SHIPPED, False
    looks.append(shipped + DELIVERY_WITHIN)
    return None


def _withdrawn(case: Case, now: datetime, looks: tasks.Looks) -> tuple[ClosedAs, bool] | None:
    """Over before anybody was told, as soon as every notice's way has ended (or its word does not come)."""
    assert case.incident is not None
    assert case.incident.resolved_at is not None
    until = case.incident.resolved_at + SETTLE
    if now < until and not all(n.over for _, n in case.offers):
        looks.append(until)
        return None
    return ClosedAs.WITHDRAWN, False


def _asked(case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks) -> bool:
    """True once the satisfaction question needs no more waiting. After a broken promise a person calls instead, and
    nobody is asked who is in dispute or wants no messages."""
    if any(entry.state == "broken" for entry in case.ledger.values()):
        case.acts.setdefault("call_after_broken", now)
        return True
    if order.disputed_at is not None or case.opted_out:
        return True
    if "satisfaction" not in case.acts:
        case.acts["satisfaction"] = now
        out.emits.append(announce.requested(case, Purpose.SATISFACTION, now))
    until = case.acts["satisfaction"] + QUESTION_WITHIN
    looks.append(until)
    return now >= until or any(n.over for n in _questions(case))


# ---- people


def _ask_people(
    case: Case, order: Order, out: Outcome, now: datetime, looks: tasks.Looks, *, store: StoreConfigured
) -> None:
    wanted = tasks.wanted(case, order, store, now, looks)
    out.withdrawn = [key for key in case.tasks if key not in wanted]
    for key in out.withdrawn:
        del case.tasks[key]
    for key, task in wanted.items():
        before = case.tasks.get(key, 0)
        if task.urgency <= before:
            continue
        case.tasks[key] = task.urgency
        out.raised.append(task)
        name = f"{key}/{task.urgency}"
        if (task.kind is Kind.CONTACT_DUE and task.urgency > 1) or task.kind is Kind.REMEDY_FAILED:
            out.emits.append(announce.escalated(case, task.kind, name, task.reason, now))
