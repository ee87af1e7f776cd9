"""What came of the calls: outcomes are committed in batches, and told; what nobody will answer for becomes unknown."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from services.dispatcher.channels.port import Failed, Outcome, ReceiptState, Sent, Unknown
from services.dispatcher.claiming import Call
from services.dispatcher.ledger import Done, Ledger, Loaded, Pause
from services.dispatcher.rules import outcome as outcomes
from services.dispatcher.rules.backoff import Backoff, delay
from services.dispatcher.rules.state import StepState
from shared.clock import Clock
from shared.events.deliveries import NoticeSent
from shared.events.envelope import to_message
from shared.events.notices import OFFERING
from shared.store.database import Database
from shared.store.unit import UnitOfWork
from shared.telemetry import Metrics

log = structlog.get_logger(__name__)

CRASHED: Final = Unknown("the process that was sending it is gone; whether it went out is not known")


@dataclass(frozen=True, slots=True)
class Answered:
    """A call with its outcome."""

    call: Call
    outcome: Outcome


class Recording:
    """Guarantees: an outcome is entered once, whatever is recorded twice; what was told is committed with it."""

    def __init__(
        self,
        ledger: Ledger,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        *,
        schema: str,
        backoff: Backoff,
        claimed_by: str,
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._schema = schema
        self._backoff = backoff
        self._claimed_by = claimed_by

    async def record(self, answered: Sequence[Answered]) -> None:
        """Commit these outcomes. Raises `Retry`; recording them again is safe then."""
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            loaded = await self._ledger.locked(unit, {a.call.claim.notice.data.notice_id for a in answered})
            done = [_done(a) for a in answered]
            news = await self._ledger.finish(unit, done, self._claimed_by)
            for one, entered in zip(answered, done, strict=True):
                key = (entered.notice_id, entered.step)
                if key in news:
                    self._settle(unit, loaded, entered.notice_id, one, news[key])
            await self._ledger.paused(unit, self._pauses(answered, await self._ledger.pauses(unit), unit.now))
            await self._ledger.look_again(unit, set(loaded.incidents))
            await self._ledger.save(unit, loaded)
            await unit.flush()
        for one in answered:
            kind = str(one.call.claim.candidate.kind)
            self._metrics.sends.labels(kind, type(one.outcome).__name__.lower()).inc()

    def _settle(
        self, unit: UnitOfWork, loaded: Loaded, notice_id: str, one: Answered, early: tuple[str, str] | None
    ) -> None:
        notice, index = loaded.notices[notice_id], one.call.claim.step
        incident = loaded.of(notice)
        never_told = incident.told_at is None
        step = notice.progress.steps[index]
        if step.state is StepState.UNKNOWN and isinstance(one.outcome, Sent):
            # Given up as crashed while we were slow; now it is known.
            events = outcomes.receipt(notice, incident, index, unit.now, state=ReceiptState.ACCEPTED, detail="")
        else:
            events = outcomes.settle(notice, incident, index, one.outcome, unit.now, backoff=self._backoff)
        if early is not None:
            state = ReceiptState(early[0])
            events += outcomes.receipt(notice, incident, index, unit.now, state=state, detail=early[1])
        for event in events:
            unit.emit(to_message(event))
        if never_told and notice.data.purpose in OFFERING and any(isinstance(e.data, NoticeSent) for e in events):
            seconds = (unit.now - notice.data.detected_at).total_seconds()
            self._metrics.contact_seconds.labels(str(notice.data.scenario)).observe(seconds)

    async def lapse(self, mine: Collection[str]) -> int:
        """What was claimed and never answered becomes unknown, once the lease has run out; how many notices."""
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            loaded = await self._ledger.lapsed(unit, mine)
            if not loaded.notices:
                return 0
            claimed = {
                (notice_id, index): step
                for notice_id, notice in loaded.notices.items()
                for index, step in notice.progress.steps.items()
                if step.state is StepState.CLAIMED
            }
            done = [Done(n, i, step.recipient, step.attempt, "unknown") for (n, i), step in claimed.items()]
            news = await self._ledger.finish(unit, done, None)
            for notice_id, index in claimed:
                notice = loaded.notices[notice_id]
                incident = loaded.of(notice)
                events = outcomes.settle(
                    notice, incident, index, CRASHED, unit.now, backoff=self._backoff, crashed=True
                )
                early = news.get((notice_id, index))
                if early is not None:
                    state = ReceiptState(early[0])
                    events += outcomes.receipt(notice, incident, index, unit.now, state=state, detail=early[1])
                for event in events:
                    unit.emit(to_message(event))
            await self._ledger.look_again(unit, set(loaded.incidents))
            await self._ledger.save(unit, loaded)
            await unit.flush()
        log.warning("claims_lapsed", notices=len(loaded.notices))
        return len(loaded.notices)

    def _pauses(
        self, answered: Sequence[Answered], known: Mapping[str, Pause], now: datetime
    ) -> dict[str, Pause | None]:
        """A channel that only failed pauses, longer each time; one that answered anything else is used again. What a
        single address gets wrong says nothing about the channel."""
        changes: dict[str, Pause | None] = {}
        for name in {a.call.claim.candidate.provider for a in answered}:
            mine = [a.outcome for a in answered if a.call.claim.candidate.provider == name]
            failed = [o for o in mine if isinstance(o, Failed) and not o.permanent]
            if len(failed) < len(mine):
                if name in known:
                    changes[name] = None
                continue
            worst = max(failed, key=lambda f: (f.account, f.retry_after or 0.0))
            failures = (known[name].failures if name in known else 0) + 1
            until = now + delay(failures, worst.retry_after, worst.account, self._backoff)
            changes[name] = Pause(failures, until, worst.account, worst.detail)
        return changes


def _done(one: Answered) -> Done:
    claim, outcome = one.call.claim, one.outcome
    state, provider_id = "unknown", None
    if isinstance(outcome, Sent):
        state, provider_id = ("person" if outcome.waits_for_person else "sent"), outcome.provider_id
    elif isinstance(outcome, Failed):
        state = "failed"
    return Done(
        claim.notice.data.notice_id, claim.step, claim.candidate.recipient, one.call.attempt, state, provider_id
    )
