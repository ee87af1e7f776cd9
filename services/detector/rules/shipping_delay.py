"""shipping_delay: paid, and will not leave the warehouse in time.

`judge` says from an order's facts and the time whether it is late, why, and when to look again; `settle` compares that
with what was last emitted and says what to emit. Numbers are the policy's, with the defaults of the domain.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.detector.rules.facts import Estimate, Incident, OrderState, first_shipped, pending_lines
from shared.events.incidents import CAUSES, Cause, DateSource, How, Scenario
from shared.events.orders import OrderKind


@dataclass(frozen=True, slots=True)
class Policy:
    """How long is late. Every number may differ by store without a change of code."""

    assumed_promise: timedelta = timedelta(hours=48)
    """Where the order carries no promise: this long after payment, and never quoted to the customer."""
    warn_before: timedelta = timedelta(hours=12)
    """An order still unshipped this long before its promise counts as late."""
    contact_within: timedelta = timedelta(hours=2)
    contact_after_payment: timedelta = timedelta(hours=24)
    fallback: timedelta = timedelta(hours=48)
    """Without a better source the new date is the later of promise and now, plus this."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """An order is late: since when, why, by what evidence, and until when."""

    cause: Cause
    evidence: tuple[str, ...]
    occurred_at: datetime
    promise: datetime
    assumed: bool
    breached: bool
    pending: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`late` is None where all is well or over, and `over` then says how an open incident would end. `reason` is in
    words. `look_at` is when time alone could change the verdict; None where it cannot."""

    late: Lateness | None
    over: How | None
    reason: str
    look_at: datetime | None


def judge(state: OrderState, now: datetime, policy: Policy) -> Verdict:
    """The state of the promise at `now`. Pure: the same facts and time give the same verdict."""
    payment = state.payment
    if payment is None:
        return Verdict(None, None, "no payment is known yet", None)
    pending = pending_lines(state)
    if not pending:
        how = _ended(state)
        return Verdict(None, how, f"nothing is left to ship: {how}", None)
    if state.promise is None and payment.kind is not OrderKind.STOCK:
        return Verdict(None, How.PROMISE_MOVED, f"{payment.kind} without a promise is never late", None)
    promise = state.promise.ship_by if state.promise else payment.paid_at + policy.assumed_promise
    since, reason, look_at = _late_since(state, promise, now, policy)
    if since is None:
        over = How.PACKED if state.packed is not None else How.BACK_IN_TIME
        if state.incident is not None and state.incident.old_date != promise:
            over = How.PROMISE_MOVED
        return Verdict(None, over, reason, look_at)
    evidence = [state.promise.stamp.id if state.promise else payment.stamp.id]
    if state.estimate is not None:
        evidence.append(state.estimate.stamp.id)
    late = Lateness(
        cause=cause_of(state.estimate),
        evidence=tuple(evidence),
        occurred_at=max(since, payment.paid_at),
        promise=promise,
        assumed=state.promise is None,
        breached=now >= promise,
        pending=pending,
        reason=reason,
    )
    return Verdict(late, None, reason, promise if now < promise else None)


def cause_of(estimate: Estimate | None) -> Cause:
    """The warehouse's word where it is one that an unshipped order can have; else unknown. Never the courier: the
    parcel has not been handed over."""
    if estimate is None or estimate.cause is None:
        return Cause.UNKNOWN
    known = {str(cause): cause for cause in CAUSES[Scenario.SHIPPING_DELAY]}
    return known.get(estimate.cause, Cause.UNKNOWN)


def _late_since(
    state: OrderState, promise: datetime, now: datetime, policy: Policy
) -> tuple[datetime | None, str, datetime | None]:
    """Since when the order is late (None: it is not), in words, and when to look again where it is not."""
    if state.packed is not None:
        # Packed leaves tonight: only the promise itself counts.
        if now >= promise:
            return promise, f"packed, but not shipped by the promise of {_day(promise)}", None
        return None, "packed, and the promise still holds", promise
    warn_at = promise - policy.warn_before
    estimate = state.estimate
    if estimate is not None and estimate.ship_at > promise:
        since = min(estimate.said_at, warn_at) if now >= warn_at else estimate.said_at
        return since, f"the warehouse ships on {_day(estimate.ship_at)}, after the promise of {_day(promise)}", None
    if estimate is not None and estimate.said_at >= warn_at and now < min(estimate.ship_at, promise):
        # News since the warning: the warehouse knows the promise is near and says that it keeps it.
        return None, f"the warehouse ships on {_day(estimate.ship_at)}, within the promise", estimate.ship_at
    if now >= promise:
        return warn_at, f"not shipped, and the promise of {_day(promise)} has passed", None
    if now >= warn_at:
        return warn_at, f"not shipped, and the promise of {_day(promise)} is near", None
    return None, "the promise is not near yet", warn_at


def _ended(state: OrderState) -> How:
    if first_shipped(state):
        return How.DELIVERED if state.delivered is not None and not state.parcels else How.SHIPPED
    return How.REFUNDED if state.refunds and not state.cancelled else How.CANCELLED


def _day(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to emit (None: nothing), and when to look again. `incident` is what the state keeps."""

    emit: str | None
    incident: Incident | None
    over: How | None
    look_at: datetime | None


def settle(state: OrderState, now: datetime, policy: Policy) -> Outcome:
    """Compare the verdict with what was last emitted: `opened`, `updated`, `resolved`, or nothing."""
    verdict = judge(state, now, policy)
    known = state.incident
    if verdict.late is None:
        if known is None or not known.open:
            return Outcome(None, known, None, verdict.look_at)
        closed = replace(known, revision=known.revision + 1, open=False, reason=verdict.reason)
        return Outcome("resolved", closed, verdict.over or How.BACK_IN_TIME, verdict.look_at)
    fresh = _incident(state, verdict.late, known if known is not None and known.open else None, now, policy)
    look_at = min(filter(None, (verdict.look_at, fresh.new_date)))
    if known is not None and known.open:
        if _same(known, fresh):
            # Kept as it is now all the same, so that it follows from the facts and not from the order they came in.
            fresh.revision = known.revision
            return Outcome(None, fresh, None, look_at)
        fresh.revision = known.revision + 1
        return Outcome("updated", fresh, None, look_at)
    fresh.revision = known.revision + 1 if known is not None else 1
    return Outcome("opened", fresh, None, look_at)


def _incident(state: OrderState, late: Lateness, known: Incident | None, now: datetime, policy: Policy) -> Incident:
    """The incident as it should stand; `known` is the open one, whose clocks and fallback date go on."""
    estimate = state.estimate
    detected_at = known.detected_at if known else now
    based_at: datetime | None = None
    if estimate is not None and estimate.ship_at > max(late.promise, now):
        new_date, source = estimate.ship_at, DateSource.ESTIMATE
    else:
        source = DateSource.FALLBACK
        kept = known.based_at if known is not None and known.old_date == late.promise else None
        based_at = kept if kept is not None and max(late.promise, kept) + policy.fallback > now else now
        new_date = max(late.promise, based_at) + policy.fallback
    return Incident(
        revision=0,
        open=True,
        cause=str(late.cause),
        evidence=late.evidence,
        occurred_at=late.occurred_at,
        detected_at=detected_at,
        contact_due_at=_contact_due(state, late.promise, detected_at, policy),
        old_date=late.promise,
        new_date=new_date,
        date_source=str(source),
        assumed=late.assumed,
        breached=late.breached,
        pending=late.pending,
        reason=late.reason,
        based_at=based_at,
    )


def _contact_due(state: OrderState, promise: datetime, detected_at: datetime, policy: Policy) -> datetime:
    """Two hours after detection, or the scenario's own limit where that falls strictly between."""
    assert state.payment is not None
    latest = detected_at + policy.contact_within
    limits = (state.payment.paid_at + policy.contact_after_payment, promise - policy.warn_before)
    return min((limit for limit in limits if detected_at < limit < latest), default=latest)


def _same(known: Incident, fresh: Incident) -> bool:
    """Whether a reader would learn anything: dates, cause, breach and lines count; evidence and wording do not."""
    return (known.cause, known.old_date, known.new_date, known.date_source, known.breached, known.pending) == (
        fresh.cause,
        fresh.old_date,
        fresh.new_date,
        fresh.date_source,
        fresh.breached,
        fresh.pending,
    )
