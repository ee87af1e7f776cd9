"""The follow-up's figures for Prometheus: first contacts that are overdue, and people's queue."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import text

from shared.clock import Clock
from shared.store.database import Database
from shared.telemetry import Metrics

log = structlog.get_logger(__name__)

SECONDS: Final = 10.0
STAGES: Final = (30, 60, 90)
"""Minutes from the detection."""


class Figures:
    """A `Background` that counts now and then. It changes nothing, so it is always settled."""

    def __init__(self, database: Database, clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._kinds: set[str] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    def nudge(self) -> None:
        return None

    async def settled(self) -> bool:
        return True

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._count(self._clock.now())
            except Exception as error:
                log.warning("figures_wait", reason=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SECONDS)

    async def _count(self, now: datetime) -> None:
        async with self._database.transaction() as connection:
            for minutes in STAGES:
                overdue = await connection.scalar(
                    text(
                        "SELECT count(*) FROM followup.cases"
                        " WHERE state = 'open' AND contacted_at IS NULL AND detected_at <= :before"
                    ),
                    {"before": now - timedelta(minutes=minutes)},
                )
                self._metrics.contact_overdue.labels(str(minutes)).set(overdue)
            rows = await connection.execute(
                text("SELECT kind, count(*) AS n FROM followup.tasks WHERE state <> 'done' GROUP BY kind")
            )
            found = {row.kind: row.n for row in rows}
        self._kinds |= found.keys()
        for kind in self._kinds:
            self._metrics.tasks_open.labels(kind).set(found.get(kind, 0))
