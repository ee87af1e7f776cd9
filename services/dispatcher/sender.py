"""The sender: takes notices from the ledger, looks once more, claims, calls the providers, records what came of it.

The order is the promise: a claim is committed before its call, the call is made outside of any transaction, its outcome
is committed after. A process that dies in between leaves a claim, which becomes `unknown` when its lease has run out,
and is never called again by itself.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from services.dispatcher.channels.port import Channel, Outcome, Unknown
from services.dispatcher.claiming import Call, Claiming
from services.dispatcher.ledger import Ledger
from services.dispatcher.recording import Answered, Recording
from shared.clock import Clock
from shared.errors import HeadsupError, Retry
from shared.store.database import Database
from shared.store.unit import UnitOfWork
from shared.telemetry import Metrics

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0
HOUSEKEEPING_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 10.0
"""How long, on the wall, a view must have been old before notices near their limit go to a person: when a virtual clock
jumps it is old for a moment only."""
CALL_SECONDS: Final = 25.0
"""A channel keeps its own limit below 20 s; one that does not is given up here, and what became of it is unknown."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrency`: most calls under way to one channel."""

    concurrency: int = 32


class Sender:
    """The `Background` of the dispatcher's worker."""

    def __init__(
        self,
        ledger: Ledger,
        claiming: Claiming,
        recording: Recording,
        *,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        schema: str,
        channels: Mapping[str, Channel],
        limits: Limits,
    ) -> None:
        self._ledger = ledger
        self._claiming = claiming
        self._recording = recording
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._schema = schema
        self._channels = channels
        self._limits = limits
        self._nudged = asyncio.Event()
        self._stopping = False
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._answered: list[Answered] = []
        self._recording_now = False
        self._in_round = False
        self._rounds = 0
        self._outcome = asyncio.Event()
        self._stale_since: float | None = None
        self._kept_at = float("-inf")

    # ---- what the worker asks

    def nudge(self) -> None:
        """Look now rather than at the next poll."""
        self._nudged.set()

    def stop(self) -> None:
        """Claim nothing more; calls under way finish and are recorded."""
        self._stopping = True
        self._nudged.set()

    async def settled(self) -> bool:
        """Nothing is to be looked at, called or recorded at this instant."""
        rounds = self._rounds
        if self._at_work():
            return False
        async with self._database.transaction() as connection:
            waiting = await self._ledger.waiting(UnitOfWork(connection, self._schema, self._clock.now()))
        # Looked at twice: a round may have claimed everything while the database was asked.
        return not (waiting or self._at_work() or rounds != self._rounds)

    def _at_work(self) -> bool:
        return bool(self._calls or self._answered or self._recording_now or self._in_round)

    async def run(self) -> None:
        """Until `stop`. A database that is away is waited for."""
        recorder = asyncio.create_task(self._record_all(), name="recorder")
        try:
            while not self._stopping:
                self._nudged.clear()
                pause = await self._one_round()
                if pause:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._nudged.wait(), pause)
            while self._calls:
                await asyncio.wait(self._calls)
            self._outcome.set()
            await recorder
        finally:
            recorder.cancel()

    # ---- claiming and calling

    async def _one_round(self) -> float:
        """Claim what can be, start the calls; how long to wait before the next look (0: look at once)."""
        self._in_round = True
        try:
            await self._housekeeping()
            places = self._places()
            if not any(n > 0 for n in places.values()) and self._channels:
                return POLL_SECONDS
            patient = self._stale_since is None or time.monotonic() - self._stale_since < PATIENCE_SECONDS
            # Shielded: cancelling a call inside the database driver can leave its connection in mid-statement.
            done = await asyncio.shield(asyncio.ensure_future(self._claiming.round(places, patient)))
        except HeadsupError as error:
            log.warning("sender_waits", reason=error.reason)
            return RETRY_SECONDS
        except Exception:
            log.exception("sender_failed")
            return RETRY_SECONDS
        finally:
            self._in_round = False
        self._rounds += bool(done.looked)
        self._stale_since = (self._stale_since or time.monotonic()) if done.stale else None
        for call in done.calls:
            task = asyncio.create_task(self._call(call), name="send")
            self._calls[task] = call
            task.add_done_callback(self._ended)
        return 0.0 if done.looked and not done.full else POLL_SECONDS

    def _places(self) -> dict[str, int]:
        taken = Counter(call.claim.candidate.provider for call in self._calls.values())
        return {name: self._limits.concurrency - taken[name] for name in self._channels}

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        self._nudged.set()

    async def _call(self, call: Call) -> None:
        channel = self._channels[call.claim.candidate.provider]
        outcome: Outcome
        try:
            outcome = await asyncio.wait_for(channel.send(call.message), CALL_SECONDS)
        except TimeoutError:
            outcome = Unknown("the channel did not answer within its time")
        except Exception as error:
            # A channel promises not to raise. Where it does, nobody knows how far it came.
            log.error("channel_failed", provider=channel.name, error=type(error).__name__)
            outcome = Unknown("the channel broke while sending")
        self._answered.append(Answered(call, outcome))
        self._outcome.set()

    # ---- recording

    async def _record_all(self) -> None:
        """Record what has been answered, in batches, for as long as there may be more."""
        while not self._stopping or self._calls or self._answered:
            await self._outcome.wait()
            self._outcome.clear()
            self._recording_now = True
            batch, self._answered = self._answered, []
            try:
                if batch:
                    await asyncio.shield(asyncio.ensure_future(self._recording.record(batch)))
            except Exception as error:
                known = error if isinstance(error, Retry) else None
                reason = known.reason if known else type(error).__name__
                log.warning("outcomes_wait", outcomes=len(batch), reason=reason, exc_info=None if known else error)
                self._answered = batch + self._answered
                self._outcome.set()
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self._recording_now = False
            self._nudged.set()

    async def _housekeeping(self) -> None:
        """Once in a while: claims of the dead, and the figures."""
        if time.monotonic() - self._kept_at < HOUSEKEEPING_SECONDS:
            return
        self._kept_at = time.monotonic()
        mine = {c.claim.notice.data.notice_id for c in self._calls.values()}
        mine |= {a.call.claim.notice.data.notice_id for a in self._answered}
        await self._recording.lapse(mine)
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now())
            unknown, held = await self._ledger.figures(unit)
            pauses = await self._ledger.pauses(unit)
        self._metrics.unknown_sends.set(unknown)
        self._metrics.notices_held.set(held)
        for name in self._channels:
            pause = pauses.get(name)
            self._metrics.breaker_open.labels(name).set(1 if pause and pause.until > self._clock.now() else 0)
