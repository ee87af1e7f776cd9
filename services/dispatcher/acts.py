"""What people do with notices: let go, let fall, send by hand. Each act is one transaction."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from services.dispatcher.channels.port import ReceiptState
from services.dispatcher.ledger import Attempt, Ledger, Loaded
from services.dispatcher.rules import outcome as outcomes
from services.dispatcher.rules.announce import tell
from services.dispatcher.rules.state import Notice, State, StepState
from shared.clock import Clock
from shared.events.deliveries import NoticeReleased, Reason
from shared.events.envelope import to_message
from shared.store.database import Database
from shared.store.unit import UnitOfWork

BY_HAND: Final = frozenset({State.HELD, State.FAILED, State.UNKNOWN})
"""States in which a person's own message settles a notice."""

Sees = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an act was not done: `missing`, or it does not fit the notice's state."""

    detail: str
    missing: bool = False
    forbidden: bool = False


Act = Callable[[UnitOfWork, Loaded, Notice], Refused | None]


class Acts:
    def __init__(
        self, ledger: Ledger, database: Database, clock: Clock, nudge: Callable[[], None], schema: str
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._nudge = nudge
        self._schema = schema

    async def release(self, ids: Collection[str], by: str, sees: Sees) -> dict[str, Refused | None]:
        """Let these go: what a person decides is behind them; what holds for everybody still does."""

        def act(unit: UnitOfWork, loaded: Loaded, notice: Notice) -> Refused | None:
            if notice.state is not State.HELD:
                return Refused(f"It is {notice.state}, not held.")
            if not notice.releasable:
                return Refused(f"A must is broken, so it never goes out: {notice.detail}")
            notice.state, notice.reason, notice.detail = State.READY, None, ""
            notice.progress.released_by, notice.look_at = by, unit.now
            unit.emit(to_message(tell(notice, NoticeReleased, unit.now, by=by)))
            return None

        return await self._each(ids, sees, act)

    async def reject(self, ids: Collection[str], by: str, sees: Sees) -> dict[str, Refused | None]:
        """Let these fall, for good."""

        def act(unit: UnitOfWork, loaded: Loaded, notice: Notice) -> Refused | None:
            if notice.state not in (State.HELD, State.WAITING, State.READY) or notice.started:
                return Refused(f"It is {notice.state}: what was given to a provider cannot be called back.")
            for told in outcomes.suppress(notice, Reason.REJECTED, "a person let it fall", unit.now, by):
                unit.emit(to_message(told))
            return None

        return await self._each(ids, sees, act)

    async def sent(self, notice_id: str, by: str, sees: Sees) -> dict[str, Refused | None]:
        """They have sent it themselves."""
        settled: list[tuple[Attempt, ReceiptState]] = []

        def act(unit: UnitOfWork, loaded: Loaded, notice: Notice) -> Refused | None:
            waits = any(s.state is StepState.PERSON for s in notice.progress.steps.values())
            if not waits and notice.state not in BY_HAND:
                return Refused(f"It is {notice.state}: there is nothing to send by hand.")
            for index, step in notice.progress.steps.items():
                if step.state in (StepState.PERSON, StepState.UNKNOWN):
                    attempt = Attempt(notice_id, index, step.recipient, str(step.state), step.provider)
                    settled.append((attempt, ReceiptState.ACCEPTED))
            for told in outcomes.sent_by_person(notice, loaded.of(notice), by, unit.now):
                unit.emit(to_message(told))
            return None

        return await self._each([notice_id], sees, act, settled)

    async def _each(
        self, ids: Collection[str], sees: Sees, act: Act, settled: Sequence[tuple[Attempt, ReceiptState]] = ()
    ) -> dict[str, Refused | None]:
        results: dict[str, Refused | None] = {}
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            loaded = await self._ledger.locked(unit, ids)
            for notice_id in ids:
                notice = loaded.notices.get(notice_id)
                if notice is None:
                    results[notice_id] = Refused("There is no such notice.", missing=True)
                elif not sees(notice.data.store_id):
                    results[notice_id] = Refused("This API key is not for that store.", forbidden=True)
                else:
                    results[notice_id] = act(unit, loaded, notice)
            await self._ledger.received(unit, settled)
            await self._ledger.look_again(unit, set(loaded.incidents))
            await self._ledger.save(unit, loaded)
            await unit.flush()
        self._nudge()
        return results
