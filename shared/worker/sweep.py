"""Firing what is due: up to the watermark, in slices, never waiting for a lock."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from shared.store import offsets, outbox, timers
from shared.store.timers import Due
from shared.store.unit import UnitOfWork
from shared.worker.batch import Shell, blames_input, why

log = structlog.get_logger(__name__)

FIRST_DELAY: Final = timedelta(minutes=1)
LONGEST_DELAY: Final = timedelta(hours=1)

Wake = Callable[[UnitOfWork, Sequence[Due]], Awaitable[None]]


class _Failed(Exception):  # noqa: N818 - what happened to the slice
    """A slice was rolled back for an error that a part of it may not have. `due` is what was claimed."""

    def __init__(self, due: Sequence[Due], error: Exception) -> None:
        super().__init__(why(error))
        self.due = due
        self.error = error


class Sweeper:
    """One service's timers. Every member sweeps; what one holds, the others pass over.

    A timer that fails stops no other: the slice is halved down to it, and it is put off, each time for longer (by the
    clock, 1 min up to 1 h), until it fires or its key is looked at for another reason."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._failures: dict[str, int] = {}

    async def sweep(self) -> None:
        """Fire everything due at or before the watermark, then report what is overdue, held or waiting."""
        shell, schema = self._shell, self._shell.settings.schema
        async with shell.database.transaction() as connection:
            mark = await offsets.watermark(connection, schema, shell.settings.topics)
            first = await timers.earliest(connection, schema)
        shell.watermark.at = mark
        now = shell.clock.now()
        if mark is not None and first is not None and first <= mark:
            await self._fire(mark)
        async with shell.database.transaction() as connection:
            late = await timers.overdue(connection, schema, now)
            waiting, oldest = await outbox.depth(connection, schema)
        shell.metrics.timers_overdue.set(late)
        shell.metrics.timers_held.set((now - (mark or first or now)).total_seconds() if late else 0.0)
        shell.metrics.outbox_messages.set(waiting)
        shell.metrics.outbox_age.set((now - oldest).total_seconds() if oldest else 0.0)

    async def _fire(self, mark: datetime) -> None:
        """Slice by slice, until nothing is left or others hold the rest. After a failure the slices are small, and grow
        again with each that succeeds."""
        most = limit = self._shell.settings.sweep_keys
        while True:
            try:
                claimed, fired = await self._slice(mark, limit, self._shell.handler.wake)
            except _Failed as failed:
                if len(failed.due) > 1:
                    limit = len(failed.due) // 2
                    log.warning("sweep_halved", timers=len(failed.due), error=why(failed.error))
                else:
                    await self._slice(mark, 1, self._putting_off(failed.due[0], failed.error))
                continue
            self._shell.metrics.timers_fired.inc(len(fired))
            for key in self._failures.keys() & fired:
                del self._failures[key]
            if claimed < limit or not fired:
                return
            limit = min(limit * 2, most)

    async def _slice(self, mark: datetime, limit: int, wake: Wake) -> tuple[int, Collection[str]]:
        """One transaction's worth: how many were claimed, and which of these were looked at."""
        shell, schema = self._shell, self._shell.settings.schema
        due: Sequence[Due] = ()
        try:
            async with shell.database.transaction() as connection:
                due = await timers.claim(connection, schema, mark, limit)
                if not due:
                    return 0, ()
                unit = UnitOfWork(connection, schema, shell.clock.now(), mark)
                await wake(unit, due)
                await unit.flush()
        except Exception as error:
            if not due or not blames_input(error):
                raise
            raise _Failed(due, error) from error
        shell.committed(bool(unit.emitted))
        return len(due), unit.wakes.keys()

    def _putting_off(self, culprit: Due, error: Exception) -> Wake:
        """Moves that one timer on. Claimed anew it may be another's or another by now: then nothing is done."""

        async def wake(unit: UnitOfWork, due: Sequence[Due]) -> None:
            if culprit not in due:
                return
            failures = self._failures[culprit.key] = self._failures.get(culprit.key, 0) + 1
            delay = min(FIRST_DELAY * 2 ** min(failures - 1, 10), LONGEST_DELAY)
            unit.wake(culprit.key, unit.now + delay)
            log.error("timer_failed", key=culprit.key, failures=failures, again_at=unit.now + delay, exc_info=error)
            self._shell.metrics.timers_failed.inc()

        return wake
