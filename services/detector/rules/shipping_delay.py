"""shipping_delay: paid, and will not leave the warehouse in time.

`judge` says from an order's facts and the moment whether it is late, why, and when to look again; `settle` compares
that with what was last emitted and says what to emit. Numbers are the policy's, with the defaults of the domain.

A deadline has passed once it is certain that nothing came before it. The clock does not show that: while input is
unread, the `shipped` may be in it. So deadlines go by `Moment.silent_until`, and `now` only dates what is decided.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from services.detector.rules.facts import Estimate, Incident, OrderState, refunded
from services.detector.rules.pending import Word, delivered, first_shipped, pending_lines, words
from shared.events.incidents import CAUSES, Cause, DateSource, How, Scenario
from shared.events.orders import OrderKind

_UNSURE = "a deadline has passed by the clock, and what came before it may be unread"
_CAUSES = {str(cause): cause for cause in CAUSES[Scenario.SHIPPING_DELAY]}


@dataclass(frozen=True, slots=True)
class Policy:
    """How long is late. Every number may differ by store without a change of code."""

    assumed_promise: timedelta = timedelta(hours=48)
    """Where the order carries no promise: this long after payment, and never quoted to the customer."""
    warn_before: timedelta = timedelta(hours=12)
    """An order still unshipped this long before its promise counts as late."""
    contact_within: timedelta = timedelta(hours=2)
    contact_after_payment: timedelta = timedelta(hours=24)
    stale_recheck: timedelta = timedelta(minutes=10)
    """An incident that is held because its feed is silent is looked at again after this."""
    fallback: timedelta = timedelta(hours=48)
    """Without a better source the new date is the later of promise and now, plus this."""


class Moment(NamedTuple):
    """When a verdict is made: the clock's `now`, and up to when all input is applied, so that silence is silence (None:
    not known; then nothing may be concluded from an absence)."""

    now: datetime
    silent_until: datetime | None

    def passed(self, deadline: datetime) -> bool:
        """Whether it is certain that nothing came by then."""
        return self.silent_until is not None and self.silent_until >= deadline

    def unsure(self, deadline: datetime) -> bool:
        """The clock is past it, and what came before it may be unread."""
        return self.now >= deadline and not self.passed(deadline)


class Lateness(NamedTuple):
    """An order is late: since when, why, by what evidence, and until when."""

    cause: Cause
    evidence: tuple[str, ...]
    estimate: Estimate | None
    occurred_at: datetime
    promise: datetime
    assumed: bool
    breached: bool
    pending: tuple[str, ...]
    reason: str


class Verdict(NamedTuple):
    """`late` is None where all is well, over, or not certain. `over` then says how an open incident would end; None
    leaves it open. `reason` is in words. `look_at` is when time alone could change the verdict; None where it
    cannot."""

    late: Lateness | None
    over: How | None
    reason: str
    look_at: datetime | None


_OVER = Verdict(None, None, "nothing is left to ship, and nothing is open", None)


def judge(state: OrderState, moment: Moment, policy: Policy) -> Verdict:
    """The state of the promise at that moment. Pure: the same facts and moment give the same verdict."""
    payment = state.payment
    if payment is None:
        return Verdict(None, None, "no payment is known yet", None)
    pending = pending_lines(state)
    if not pending:
        if state.incident is None or not state.incident.open:
            return _OVER
        how = _ended(state)
        return Verdict(None, how, f"nothing is left to ship: {how}", None)
    if state.promise is None and payment.kind is not OrderKind.STOCK:
        return Verdict(None, How.PROMISE_MOVED, f"{payment.kind} without a promise is never late", None)
    promise = state.promise.ship_by if state.promise else payment.paid_at + policy.assumed_promise
    said = words(state, pending)
    looks = [_look(state, word, promise, moment, policy) for word in said]
    late = [look for look in looks if look.since is not None]
    if not late:
        return _in_time(state, promise, looks)
    first = min(late, key=lambda look: (look.since, look.reason))
    assert first.since is not None
    estimate = worst(said)
    evidence = [state.promise.stamp.id if state.promise else payment.stamp.id]
    if estimate is not None:
        evidence.append(estimate.stamp.id)
    breached = moment.passed(promise)
    lateness = Lateness(
        cause=cause_of(estimate),
        evidence=tuple(evidence),
        estimate=estimate,
        occurred_at=max(first.since, payment.paid_at),
        promise=promise,
        assumed=state.promise is None,
        breached=breached,
        pending=pending,
        reason=first.reason,
    )
    return Verdict(lateness, None, first.reason, None if breached else promise)


def worst(said: Collection[Word]) -> Estimate | None:
    """Of what is said about the pending lines the latest estimate: the order is whole when its last line is there."""
    estimates = [word.estimate for word in said if word.estimate is not None]
    return max(estimates, key=lambda estimate: (estimate.ship_at, estimate.stamp), default=None)


def cause_of(estimate: Estimate | None) -> Cause:
    """The warehouse's word where it is one that an unshipped order can have; else unknown. Never the courier: the
    parcel has not been handed over."""
    if estimate is None or estimate.cause is None:
        return Cause.UNKNOWN
    return _CAUSES.get(estimate.cause, Cause.UNKNOWN)


class _Look(NamedTuple):
    """What one word comes to: late `since` (None: not late, or not certain), in words, when to look again, and how that
    would end an open incident (None: not at all)."""

    since: datetime | None
    reason: str
    look_at: datetime | None = None
    over: How | None = None


def _look(state: OrderState, word: Word, promise: datetime, moment: Moment, policy: Policy) -> _Look:
    estimate, packed = word
    warn_at = promise - policy.warn_before
    if estimate is not None and estimate.ship_at > promise:
        late_from = min(estimate.said_at, warn_at)
    elif estimate is not None and estimate.said_at >= warn_at:
        # News since the warning: the warehouse knows the promise is near and says that it keeps it.
        late_from = max(estimate.ship_at, warn_at)
    else:
        late_from = warn_at
    if packed is not None and packed.at <= max(late_from, _promised_at(state)):
        return _packed(promise, moment)
    if estimate is not None and estimate.ship_at > promise:
        if moment.unsure(estimate.ship_at):
            return _Look(None, _UNSURE, estimate.ship_at)
        return _Look(
            late_from, f"the warehouse ships on {_day(estimate.ship_at)}, after the promise of {_day(promise)}"
        )
    if moment.passed(late_from):
        how = "has passed" if moment.passed(promise) else "is near"
        return _Look(warn_at, f"not shipped, and the promise of {_day(promise)} {how}")
    if moment.unsure(late_from):
        return _Look(None, _UNSURE, late_from)
    reason = "the promise is not near yet"
    if estimate is not None and late_from > warn_at:
        reason = f"the warehouse ships on {_day(estimate.ship_at)}, within the promise"
    return _Look(None, reason, late_from, How.BACK_IN_TIME)


def _packed(promise: datetime, moment: Moment) -> _Look:
    """Packed before it was late leaves tonight: only the promise itself counts. Packing an order that is late already
    does not end it, and told by the events' own times that does not depend on which of them is read first."""
    if moment.passed(promise):
        return _Look(promise, f"packed, but not shipped by the promise of {_day(promise)}")
    if moment.unsure(promise):
        return _Look(None, _UNSURE, promise)
    return _Look(None, "packed, and the promise still holds", promise, How.PACKED)


def _in_time(state: OrderState, promise: datetime, looks: Collection[_Look]) -> Verdict:
    """No line is late, or none is for certain: that leaves an open incident open."""
    soonest = min(looks, key=_by_look_at)
    over = How.PACKED
    for look in looks:
        if look.over is None:
            return Verdict(None, None, _UNSURE, soonest.look_at)
        if look.over is not How.PACKED:
            over = How.BACK_IN_TIME
    if state.incident is not None and state.incident.old_date != promise:
        over = How.PROMISE_MOVED
    return Verdict(None, over, soonest.reason, soonest.look_at)


def _by_look_at(look: _Look) -> datetime:
    assert look.look_at is not None
    return look.look_at


def _promised_at(state: OrderState) -> datetime:
    """When the promise was made: before that nothing could be late."""
    assert state.payment is not None
    return state.promise.stamp.at if state.promise is not None else state.payment.paid_at


def _ended(state: OrderState) -> How:
    if first_shipped(state):
        return How.DELIVERED if delivered(state) and not state.parcels else How.SHIPPED
    return How.REFUNDED if state.refunds and not state.cancelled else How.CANCELLED


def _day(instant: datetime) -> str:
    return f"{instant.isoformat(' ', 'minutes')[:16]} UTC"


class Outcome(NamedTuple):
    """What to emit (None: nothing), and when to look again. `incident` is what the state keeps."""

    emit: str | None
    incident: Incident | None
    over: How | None
    look_at: datetime | None


def settle(
    state: OrderState, now: datetime, policy: Policy, silent_until: datetime | None = None, stale: bool = False
) -> Outcome:
    """Compare the verdict with what was last emitted: `opened`, `updated`, `resolved`, or nothing.

    `silent_until` is never after `now`. A smaller one than is true delays what an absence shows, and changes nothing
    else. `stale` says that the store's feed has been silent for longer than it may: what rests on absence is held."""
    moment = Moment(now, silent_until)
    verdict = judge(state, moment, policy)
    known = state.incident if state.incident is not None and state.incident.open else None
    if verdict.late is None:
        if known is None or verdict.over is None:
            return Outcome(None, state.incident, None, verdict.look_at)
        closed = replace(known, revision=known.revision + 1, open=False, reason=verdict.reason)
        return Outcome("resolved", closed, verdict.over, verdict.look_at)
    if known is not None and moment.unsure(known.new_date):
        # Whether the date that was told was kept is not certain; another one would be a guess.
        return Outcome(None, known, None, known.new_date)
    fresh = _incident(state, verdict.late, known, now, policy)
    fresh.held = stale and fresh.absent
    recheck = now + policy.stale_recheck if fresh.held else None
    look_at = min(filter(None, (verdict.look_at, fresh.new_date, recheck)))
    if known is not None and _same(known, fresh):
        # Kept as it is now all the same, so that it follows from the facts and not from the order they came in.
        fresh.revision = known.revision
        return Outcome(None, fresh, None, look_at)
    fresh.revision = state.incident.revision + 1 if state.incident is not None else 1
    return Outcome("opened" if known is None else "updated", fresh, None, look_at)


def _incident(state: OrderState, late: Lateness, known: Incident | None, now: datetime, policy: Policy) -> Incident:
    """The incident as it should stand; `known` is the open one, whose clocks and fallback date go on."""
    estimate = late.estimate
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
        absent=estimate is None or estimate.ship_at <= late.promise,
        refunded=refunded(state),
    )


def _contact_due(state: OrderState, promise: datetime, detected_at: datetime, policy: Policy) -> datetime:
    """Two hours after detection, or the scenario's own limit where that falls strictly between."""
    assert state.payment is not None
    latest = detected_at + policy.contact_within
    limits = (state.payment.paid_at + policy.contact_after_payment, promise - policy.warn_before)
    return min((limit for limit in limits if detected_at < limit < latest), default=latest)


def _same(known: Incident, fresh: Incident) -> bool:
    """Whether a reader would learn anything: dates, cause, breach, lines, hold, refunds; not evidence and wording."""
    return _news(known) == _news(fresh)


def _news(i: Incident) -> tuple[object, ...]:
    return (i.cause, i.old_date, i.new_date, i.date_source, i.breached, i.pending, i.held, i.refunded)
