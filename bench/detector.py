"""The real detector as a process by itself, until SIGTERM. `python -m bench.detector` is run by the bench.

It says on standard output, in JSON lines, when the first batch came and, at the end, its peak memory.
"""

import argparse
import asyncio
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.servers import INPUTS
from services.detector.handlers import Detector
from services.detector.listing import PostgresFeeds, PostgresListing
from services.detector.postgres import PostgresOrders
from services.detector.rules.shipping_delay import Policy
from shared.bus import connect
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.process import spare_collector
from shared.seal import Sealer
from shared.store.database import Database
from shared.store.unit import UnitOfWork
from shared.telemetry import Metrics, configure_logging
from shared.worker import Worker, WorkerSettings

SECRET = bytes(range(32))


class Announcing(Detector):
    """Says when its first batch came; otherwise the detector as it is."""

    _begun = False

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        if not self._begun:
            self._begun = True
            say(first=time.monotonic(), cpu_seconds=time.process_time())
        await super().apply(unit, events)


def say(**what: float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(bus_url: str, database_url: str) -> None:
    configure_logging(json=True, level="WARNING")
    database = Database(database_url)
    sealer = Sealer(SECRET)
    metrics = Metrics()
    worker = Worker(
        WorkerSettings("detector", INPUTS),
        Announcing(PostgresOrders(), PostgresListing(), PostgresFeeds(), sealer, Policy()),
        bus=connect(bus_url),
        database=database,
        sealer=sealer,
        clock=SystemClock(),
        metrics=metrics,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    try:
        await worker.run()
    finally:
        await database.close()
    phases = {
        sample.labels["phase"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "headsup_batch_seconds_sum"
    }
    say(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **phases)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.detector", description="The detector; run by the bench.")
    parser.add_argument("bus")
    parser.add_argument("database")
    arguments = parser.parse_args()
    spare_collector()  # as every process of ours does
    uvloop.run(main(arguments.bus, arguments.database))
