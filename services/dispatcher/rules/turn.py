"""A notice's turn: the gate decides, the plan chooses, and the notice moves on accordingly."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.dispatcher.rules import plan
from services.dispatcher.rules.announce import tell
from services.dispatcher.rules.gate import Hold, Look, Suppress, Wait, gate, usable
from services.dispatcher.rules.outcome import refresh, suppress
from services.dispatcher.rules.plan import Candidate, Go, Later, Ways
from services.dispatcher.rules.state import Notice, State, Step, StepState, Try
from shared.events.deliveries import CallRequested, Channel, NoticeFailed, NoticeHeld, Reason
from shared.events.envelope import Event
from shared.events.notices import Purpose

GOES_ON: frozenset[Reason] = frozenset({Reason.WAVE, Reason.TIMED_OUT})
"""What was held for one of these goes on by itself once the hold is gone; all else waits for a person's release."""

ADDRESS_PROBLEMS = frozenset({Reason.BAD_ADDRESS, Reason.COUNTRY})


@dataclass(slots=True)
class Turn:
    """What a turn brought: events to tell, and steps to be claimed and sent now. `first`: the notice starts with it.
    `call`: an agent is to call the customer, too. `full`: it found a provider's places taken."""

    events: list[Event[Any]] = field(default_factory=list)
    claims: dict[int, Candidate] = field(default_factory=dict)
    first: bool = False
    call: bool = False
    full: bool = False


def take(look: Look, ways: Ways, lease: timedelta) -> Turn:
    """Let the notice have its turn."""
    notice, now = look.notice, look.now
    decision = gate(look)
    notice.look_at = None
    if isinstance(decision, Suppress):
        return Turn(suppress(notice, decision.reason, decision.words, now))
    if isinstance(decision, Hold):
        return _hold(notice, decision, now)
    if notice.state is State.HELD and notice.reason not in GOES_ON:
        return Turn()
    if isinstance(decision, Wait):
        if not notice.out:
            notice.state, notice.reason, notice.detail = State.WAITING, decision.reason, decision.words
        notice.wake_at = decision.until
        return Turn()
    return _send(look, ways, lease)


def _hold(notice: Notice, decision: Hold, now: datetime) -> Turn:
    if notice.out or (notice.state is State.HELD and notice.reason is decision.reason):
        return Turn()
    notice.state, notice.reason, notice.detail = State.HELD, decision.reason, decision.words
    notice.releasable = decision.releasable
    told = tell(notice, NoticeHeld, now, reason=decision.reason, detail=decision.words, releasable=decision.releasable)
    return Turn([told])


def _send(look: Look, ways: Ways, lease: timedelta) -> Turn:
    notice, data, now = look.notice, look.notice.data, look.now
    until = plan.quiet_for(look.store, data.purpose, now)
    together = plan.all_wait(data, until)
    turn, waits, gone = Turn(), [], []
    for index, kinds in enumerate(plan.steps_of(data, look.incident)):
        step = notice.progress.steps.get(index) or Step()
        if step.state is not StepState.OPEN:
            continue
        found, problem = plan.candidates(kinds, data, usable(look), ways, now)
        choice = plan.choose(step, found, problem, ways, now, quiet=until, quiet_ways_too=together)
        notice.progress.steps[index] = step
        if isinstance(choice, Go):
            turn.claims[index] = choice.candidate
        elif isinstance(choice, Later):
            waits.append(choice)
        else:
            # Not a single try of it: there is no such step for this customer.
            step.state = StepState.FAILED if step.tried or step.accepted else StepState.DROPPED
            step.reason = choice.reason
            gone.append(step)
    if turn.claims:
        turn.first = not notice.started
        turn.call = turn.first and _calls(look)
        for index, candidate in turn.claims.items():
            _claim(notice, index, candidate, now, lease)
        if turn.call:
            look.incident.called = True
            words = "an important order: an agent calls, too"
            turn.events.append(tell(notice, CallRequested, now, channel=Channel.PHONE, detail=words))
    _rest(turn, look, waits, gone)
    return turn


def _claim(notice: Notice, index: int, candidate: Candidate, now: datetime, lease: timedelta) -> None:
    step = notice.progress.steps[index]
    step.state, step.attempt, step.retry_at = StepState.CLAIMED, step.attempt + 1, None
    step.first_at = step.first_at or now
    step.provider, step.kind, step.recipient = candidate.provider, candidate.kind, candidate.recipient
    notice.progress.tries.append(Try(now, index, step.attempt, candidate.provider, candidate.kind))
    notice.state, notice.reason, notice.detail = State.CLAIMED, None, ""
    notice.claimed_until = now + lease


def _rest(turn: Turn, look: Look, waits: list[Later], gone: list[Step]) -> None:
    """What is not claimed now: when to look again, or how the notice ends where nothing is left of it."""
    notice, now = look.notice, look.now
    turn.full = any(later.full for later in waits)
    if turn.full:
        notice.look_at = now
    if waits:
        notice.wake_at = min((w.until for w in waits if w.until is not None and not w.full), default=None)
        if not notice.out and not turn.full:
            first = waits[0]
            notice.state, notice.reason, notice.detail = State.WAITING, first.reason, first.words
        return
    states = {step.state for step in notice.progress.steps.values()}
    if turn.claims or states - {StepState.FAILED, StepState.DROPPED}:
        if not turn.claims:
            refresh(notice, now)
        return
    reason = next((s.reason for s in gone if s.reason is not Reason.NO_CHANNEL), Reason.NO_CHANNEL)
    if notice.started or reason in ADDRESS_PROBLEMS:
        notice.state, notice.reason = State.FAILED, reason
        notice.detail = next((s.detail for s in gone if s.detail), "no contact of the customer can be written to")
        for step in gone:
            step.state = StepState.FAILED
        turn.events.append(tell(notice, NoticeFailed, now, reason=reason, detail=notice.detail, final=True))
    elif look.purpose is Purpose.SATISFACTION:
        turn.events += suppress(notice, Reason.NO_CHANNEL, "no channel may carry the question", now)
    else:
        notice.progress.steps.clear()
        words = "no channel of this installation reaches the customer"
        turn.events += _hold(notice, Hold(Reason.NO_CHANNEL, words), now).events


def _calls(look: Look) -> bool:
    data = look.notice.data
    wanted = data.important and data.purpose is Purpose.FIRST_CONTACT and not look.incident.called
    return wanted and look.spent.calls < look.store.important.calls_a_day
