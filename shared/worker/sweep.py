"""Firing what is due: up to the watermark, in slices, never waiting for a lock."""

from datetime import datetime

from shared.store import offsets, outbox, timers
from shared.store.unit import UnitOfWork
from shared.worker.batch import Shell


class Sweeper:
    """One service's timers. Every member sweeps; what one holds, the others pass over."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def sweep(self) -> None:
        """Fire everything due at or before the watermark, then report what is overdue, held or waiting."""
        shell, schema = self._shell, self._shell.settings.schema
        async with shell.database.transaction() as connection:
            mark = await offsets.watermark(connection, schema, shell.settings.topics)
            first = await timers.earliest(connection, schema)
        shell.watermark.at = mark
        now = shell.clock.now()
        while mark is not None and first is not None and first <= mark:
            claimed, fired = await self._slice(mark)
            if claimed < shell.settings.sweep_keys or fired == 0:
                break
        async with shell.database.transaction() as connection:
            late = await timers.overdue(connection, schema, now)
            waiting, oldest = await outbox.depth(connection, schema)
        shell.metrics.timers_overdue.set(late)
        shell.metrics.timers_held.set((now - (mark or first or now)).total_seconds() if late else 0.0)
        shell.metrics.outbox_messages.set(waiting)
        shell.metrics.outbox_age.set((now - oldest).total_seconds() if oldest else 0.0)

    async def _slice(self, mark: datetime) -> tuple[int, int]:
        """One transaction's worth: how many were claimed, and how many of these the handler looked at."""
        shell, schema = self._shell, self._shell.settings.schema
        async with shell.database.transaction() as connection:
            due = await timers.claim(connection, schema, mark, shell.settings.sweep_keys)
            if not due:
                return 0, 0
            unit = UnitOfWork(connection, schema, shell.clock.now(), mark)
            await shell.handler.wake(unit, due)
            fired = len(unit.wakes)
            emitted = bool(unit.emitted)
            await unit.flush()
        if emitted:
            shell.relay.nudge()
        shell.metrics.timers_fired.inc(fired)
        return len(due), fired
