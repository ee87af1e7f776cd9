"""What a provider's answer, a receipt or a person's word does to a notice.

All functions change the notice (and the incident's memory of what was told) and return the events that tell it.
`Unknown` is an end for everything automatic: only a receipt or a person moves it.
"""

from datetime import datetime
from typing import Any

from services.dispatcher.channels.port import Failed, Outcome, ReceiptState, Sent, Unknown
from services.dispatcher.rules.announce import tell
from services.dispatcher.rules.backoff import Backoff, delay, gives_up_at
from services.dispatcher.rules.state import REACHED, IncidentState, Notice, State, Step, StepState
from shared.events.deliveries import (
    NoticeDelivered,
    NoticeFailed,
    NoticeHeld,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
    Reason,
)
from shared.events.envelope import Event
from shared.events.notices import OFFERING, Purpose

Events = list[Event[Any]]


def settle(
    notice: Notice,
    incident: IncidentState,
    index: int,
    outcome: Outcome,
    now: datetime,
    *,
    backoff: Backoff,
    crashed: bool = False,
) -> Events:
    """The answer to a claimed step's call. `crashed`: there is none, because the process that called is gone."""
    step = notice.progress.steps[index]
    if step.state is not StepState.CLAIMED:
        return []
    events: Events = []
    if isinstance(outcome, Sent) and outcome.waits_for_person:
        step.state, step.reason, step.detail = StepState.PERSON, Reason.ASSISTED, "a person has to send it"
        events.append(
            tell(
                notice, NoticeHeld, now, reason=step.reason, detail=step.detail, releasable=False, **_where(step, index)
            )
        )
        _note(notice, index, "waits for a person", "")
    elif isinstance(outcome, Sent):
        events += _sent(notice, incident, index, now)
        _note(notice, index, "sent", "")
    elif isinstance(outcome, Unknown):
        step.state, step.detail = StepState.UNKNOWN, outcome.detail
        step.reason = Reason.CRASHED if crashed else Reason.TIMED_OUT
        _doubt(notice, incident)
        events.append(tell(notice, NoticeUnknown, now, reason=step.reason, detail=step.detail, **_where(step, index)))
        _note(notice, index, "unknown", outcome.detail)
    else:
        events += _failed(notice, index, outcome, now, backoff)
        _note(notice, index, "failed", outcome.detail)
    refresh(notice, now)
    return events


def _failed(notice: Notice, index: int, outcome: Failed, now: datetime, backoff: Backoff) -> Events:
    step = notice.progress.steps[index]
    step.state, step.detail = StepState.OPEN, outcome.detail
    if not outcome.permanent:
        again = now + delay(step.attempt, outcome.retry_after, False, backoff)
        if outcome.account:
            # The whole channel pauses; another one may take it at once.
            step.retry_at, step.reason = None, Reason.PROVIDER_DOWN
            return []
        if again < gives_up_at(notice, step, backoff):
            step.retry_at, step.reason = again, Reason.PROVIDER_DOWN
            return []
        step.reason = Reason.PROVIDER_DOWN
    else:
        step.reason = Reason.REFUSED
    _next_candidate(step)
    return [tell(notice, NoticeFailed, now, reason=step.reason, detail=step.detail, final=False, **_where(step, index))]


def receipt(
    notice: Notice, incident: IncidentState, index: int, now: datetime, *, state: ReceiptState, detail: str
) -> Events:
    """The provider's later word. Nothing changes where it says no more than what is known."""
    step = notice.progress.steps[index]
    events: Events = []
    known = step.state
    if known not in (StepState.SENT, StepState.UNKNOWN, StepState.PERSON):
        return []
    if state is ReceiptState.FAILED:
        step.detail, step.reason, step.state = (
            detail or "the provider could not deliver it",
            Reason.UNDELIVERED,
            StepState.OPEN,
        )
        step.accepted.append(step.recipient)
        _next_candidate(step)
        events.append(
            tell(notice, NoticeFailed, now, reason=step.reason, detail=step.detail, final=False, **_where(step, index))
        )
        _doubt(notice, incident)
    else:
        if known is not StepState.SENT:
            events += _sent(notice, incident, index, now)
        if state is ReceiptState.DELIVERED:
            step.state = StepState.DELIVERED
            events.append(tell(notice, NoticeDelivered, now, **_where(step, index)))
    if events:
        _note(notice, index, str(state), detail)
    refresh(notice, now)
    return events


def sent_by_person(notice: Notice, incident: IncidentState, by: str, now: datetime) -> Events:
    """A person says that they have sent it: what waited for them or was unknown is settled; a notice that was held or
    failed counts as told by their own words."""
    waiting = {i: s for i, s in notice.progress.steps.items() if s.state in (StepState.PERSON, StepState.UNKNOWN)}
    if not waiting:
        waiting = {max(notice.progress.steps, default=-1) + 1: Step(provider="by hand")}
        notice.progress.steps.update(waiting)
    for step in notice.progress.steps.values():
        if step.state is StepState.OPEN:
            step.state = StepState.DROPPED
    events: Events = []
    for index in sorted(waiting):
        events += _sent(notice, incident, index, now, by=by)
    notice.releasable = True
    refresh(notice, now)
    return events


def suppress(notice: Notice, reason: Reason, words: str, now: datetime, by: str | None = None) -> Events:
    """It will not go out, for good. Of a notice of which a part has gone only the rest is dropped, without a word: the
    customer was told."""
    for step in notice.progress.steps.values():
        if step.state is StepState.OPEN:
            step.state, step.reason, step.detail = StepState.DROPPED, reason, words
    if notice.out:
        refresh(notice, now)
        return []
    notice.state, notice.reason, notice.detail = State.SUPPRESSED, reason, words
    notice.look_at = notice.wake_at = None
    return [tell(notice, NoticeSuppressed, now, reason=reason, detail=words, by=by)]


def refresh(notice: Notice, now: datetime) -> None:
    """The notice's own state and next look, from those of its steps."""
    steps = notice.progress.steps.values()
    states = {step.state for step in steps}
    if StepState.CLAIMED not in states:
        notice.claimed_until = None
    notice.wake_at = None
    notice.look_at = now if StepState.OPEN in states else None
    order = (
        (StepState.CLAIMED, State.CLAIMED),
        (StepState.DELIVERED, State.DELIVERED),
        (StepState.SENT, State.SENT),
        (StepState.UNKNOWN, State.UNKNOWN),
        (StepState.OPEN, State.READY),
        (StepState.PERSON, State.WAITING),
        (StepState.FAILED, State.FAILED),
    )
    for state, told in order:
        if state in states:
            notice.state = told
            break
    last = next((s for s in steps if s.state in (StepState.UNKNOWN, StepState.PERSON, StepState.FAILED)), None)
    reached = notice.state in (State.SENT, State.DELIVERED)
    notice.reason = None if last is None or reached else last.reason
    notice.detail = "" if last is None or reached else last.detail


def _sent(notice: Notice, incident: IncidentState, index: int, now: datetime, by: str | None = None) -> Events:
    step, data = notice.progress.steps[index], notice.data
    step.state, step.reason, step.detail, step.retry_at = StepState.SENT, None, "", None
    if step.recipient:
        step.accepted.append(step.recipient)
    if step.kind is not None and step.kind not in incident.reached:
        incident.reached.append(step.kind)
    if notice.sent_at is None:
        notice.sent_at = now
    if data.purpose in OFFERING:
        incident.told_at = incident.told_at or now
        incident.told_date = data.told_date or incident.told_date
        incident.told_by = data.notice_id
    elif data.purpose is Purpose.GOOD_NEWS:
        incident.told_by = None  # no bad news stands any more: the same date again would be news
    _doubt(notice, incident)
    return [tell(notice, NoticeSent, now, told_date=data.told_date, by=by, **_where(step, index))]


def _doubt(notice: Notice, incident: IncidentState) -> None:
    """Note whether this offer may have reached the customer without anybody knowing."""
    mine = notice.data.notice_id
    states = {step.state for step in notice.progress.steps.values()}
    unknown = notice.data.purpose in OFFERING and StepState.UNKNOWN in states and not states & REACHED
    incident.unknown_by = [n for n in incident.unknown_by if n != mine] + [mine] * unknown


def _next_candidate(step: Step) -> None:
    step.tried.append(f"{step.provider}/{step.kind}/{step.recipient}")
    step.first_at = step.retry_at = None


def _where(step: Step, index: int) -> dict[str, Any]:
    """Which try it was; by hand there is none."""
    return {
        "channel": step.kind,
        "provider": step.provider or None,
        "step": index,
        "attempt": step.attempt or None,
    }


def _note(notice: Notice, index: int, outcome: str, detail: str) -> None:
    for one in reversed(notice.progress.tries):
        if one.step == index:
            one.outcome, one.detail = outcome, detail
            return
