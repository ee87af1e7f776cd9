"""The promise ledger: what each message promised, by when, and what shows that it was kept.

| kind | kept by |
| --- | --- |
| ship_by | the whole order has left |
| refund | `remedy.completed.v1` for the chosen refund, or all of the money is back |
| coupon, gift | `remedy.completed.v1` for the choice that brings them |

A person may tick any promise. kept, broken and void are final.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from services.followup.rules.clocks import GRACE
from services.followup.rules.facts import Case, Entry, Given
from services.followup.rules.order import Order
from shared.events.envelope import event_id
from shared.events.incidents import How
from shared.events.notices import PromiseKind, RemedyKind

LEAST_LEAD: Final = timedelta(minutes=10)
REFUND_SECONDS: Final = 24 * 3600
MOST_LEAD: Final = timedelta(hours=12)


def at_risk_from(made_at: datetime, due_at: datetime) -> datetime:
    """From when an unkept promise alerts: a quarter of its time before it breaks, 10 minutes to 12 hours."""
    lead = max(LEAST_LEAD, min((due_at - made_at) / 4, MOST_LEAD))
    return max(made_at, due_at - lead)


def promise_id(case_id: str, kind: PromiseKind, due_at: datetime) -> str:
    """The same deed by the same time is one promise, however many messages repeat it."""
    return event_id("promise", case_id, str(kind), due_at.isoformat())


def enter(case: Case) -> None:
    """Take what has been promised by now into the ledger."""
    for given, made_at in _made(case):
        due_at = due(given, made_at)
        if due_at is None:
            continue
        identity = promise_id(case.case_id, given.kind, due_at)
        known = case.ledger.get(identity)
        if known is None:
            case.ledger[identity] = Entry(given.kind, given.text, made_at, due_at)
        else:
            known.made_at = min(known.made_at, made_at)


def due(given: Given, made_at: datetime) -> datetime | None:
    if given.due_at is not None:
        return given.due_at
    return None if given.within_seconds is None else made_at + timedelta(seconds=given.within_seconds)


def _made(case: Case) -> Iterator[tuple[Given, datetime]]:
    for notice in case.notices.values():
        if notice.sent_at is not None:
            yield from ((given, notice.sent_at) for given in notice.promises)
    if case.choice is not None:
        option = case.choice.option
        yield from ((given, case.choice.at) for given in option.promises)
        if option.code is RemedyKind.REFUND and all(p.kind is not PromiseKind.REFUND for p in option.promises):
            # Money back is owed by some time, even where the message named none.
            yield Given(PromiseKind.REFUND, option.label, None, REFUND_SECONDS, option.amount), case.choice.at


def settle(case: Case, order: Order, now: datetime) -> tuple[list[str], datetime | None]:
    """Bring every entry to its state at `now`. Returns the promises whose state changed, and when to look again."""
    enter(case)
    changed: list[str] = []
    looks: list[datetime] = []
    for identity, entry in case.ledger.items():
        if not entry.pending:
            continue
        before = entry.state
        _settle(case, order, identity, entry, now)
        if entry.state != before:
            changed.append(identity)
        if entry.pending:
            looks += [t for t in (at_risk_from(entry.made_at, entry.due_at), entry.due_at) if t > now]
    return changed, min(looks, default=None)


def _settle(case: Case, order: Order, identity: str, entry: Entry, now: datetime) -> None:
    done = _evidence(case, order, entry, now)
    if identity in case.ticked:
        _end(entry, "kept", now, f"{case.ticked[identity]} says so")
    elif done is not None and done <= entry.due_at:
        _end(entry, "kept", done, "done in time")
    elif done is not None:
        _end(entry, "broken", entry.due_at, "done, but late")
    elif why := _void(case, order, entry):
        _end(entry, "void", now, why)
    elif now >= entry.due_at:
        _end(entry, "broken", entry.due_at, "not done in time")
    elif now >= at_risk_from(entry.made_at, entry.due_at):
        entry.state, entry.reason = "at_risk", "not done yet, and nearly due"


def _end(entry: Entry, state: str, at: datetime, reason: str) -> None:
    entry.state, entry.settled_at, entry.reason = state, at, reason


def _evidence(case: Case, order: Order, entry: Entry, now: datetime) -> datetime | None:
    """When the deed was done; None while it is not."""
    if entry.kind is PromiseKind.SHIP_BY:
        return shipped_at(case, order, now)
    chosen = case.choice.option.code if case.choice is not None else None
    done = case.remedy.at if case.remedy is not None and case.remedy.done else None
    if entry.kind is not PromiseKind.REFUND:
        return done if chosen is not RemedyKind.REFUND else None
    return (done if chosen is RemedyKind.REFUND else None) or order.refunded_at(case)


def shipped_at(case: Case, order: Order, now: datetime) -> datetime | None:
    """When the whole order left: by the shop's word, else, once that had its time to come, by what proves it."""
    said = order.shipped_at(case)
    proof = proof_at(case, order)
    if said is None and proof is not None and now >= proof + GRACE:
        return proof
    return said


def proof_at(case: Case, order: Order) -> datetime | None:
    """Since when a delivery or the incident's end proves that the order has left."""
    incident = case.incident
    over = incident is not None and incident.how in {How.SHIPPED, How.DELIVERED}
    return order.delivered_at(case) or (incident.resolved_at if incident is not None and over else None)


def _void(case: Case, order: Order, entry: Entry) -> str:
    """Why nobody has to keep this promise any more; empty where somebody has."""
    if case.by_person is not None:
        return "a person took the case over"
    if cancelled(case, order) and entry.kind is not PromiseKind.REFUND:
        return "the order is cancelled"
    chosen = case.choice.option.code if case.choice is not None else None
    back = order.refunded_at(case) is not None or _how(case) is How.REFUNDED
    if back and entry.kind is not PromiseKind.REFUND and chosen in {None, RemedyKind.WAIT}:
        return "the money is back"
    if entry.kind is not PromiseKind.SHIP_BY:
        return ""
    if chosen is RemedyKind.REFUND:
        return "the customer chose a refund"
    for other in case.ledger.values():
        if other.kind is entry.kind and entry.made_at < other.made_at <= entry.due_at:
            return "a later message named another date"
    return ""


def cancelled(case: Case, order: Order) -> bool:
    return order.cancelled_at(case) is not None or _how(case) is How.CANCELLED


def _how(case: Case) -> How | None:
    return case.incident.how if case.incident is not None else None
