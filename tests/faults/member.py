"""One detector in a process of its own, for tests that kill it: `python -m tests.faults.member SPEC` (JSON).

Its clock stands still. It obeys lines on its standard input: `clock <RFC 3339>` moves the clock, `stop` ends it in
good order; the end of the input kills it. It says `at <point>` when its trap goes off.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, cast

from shared.bus import connect
from shared.bus.kafka import KafkaBus
from shared.bus.port import Bus
from shared.clock import VirtualClock
from shared.store import outbox
from shared.store.database import Database
from shared.telemetry import Metrics, configure_logging
from shared.worker import Worker, WorkerSettings
from tests.faults.traps import Trap, TrappedBus, TrappedDatabase
from tests.support.running import SEALER, ADetector


@dataclass(frozen=True)
class Spec:
    """What a member is to be. `slow` holds up the commits of a site (see traps.py) by seconds."""

    bus: str
    database: str
    topics: tuple[str, ...]
    now: str
    point: str = ""
    nth: int = 1
    deadly: int = int(signal.SIGKILL)
    slow: dict[str, float] = field(default_factory=dict)
    session_ms: int = 1500
    batch_records: int = 10
    sweep_keys: int = 5
    relay_idle_seconds: float = 60.0

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Wired:
    """A worker with its real parts, the seams of which pass the trap."""

    worker: Worker
    database: Database
    bus: Bus
    clock: VirtualClock
    trap: Trap
    metrics: Metrics

    def ticks(self) -> int:
        """How often the logs' ends were observed and the timers swept; each tick also looks at the outbox."""
        return self.trap.passes["Sweeper.sweep"]


def wire(spec: Spec) -> Wired:
    trap = Trap(spec.point, spec.nth, spec.deadly)
    database = TrappedDatabase(spec.database, trap, spec.slow)
    clock = VirtualClock(datetime.fromisoformat(spec.now))
    if spec.bus == "local:":
        real: Bus = connect(spec.bus, database.engine, clock)
    else:
        real = KafkaBus([spec.bus.removeprefix("kafka://")], session_timeout_ms=spec.session_ms)
    bus = cast("Bus", TrappedBus(real, trap))
    settings = WorkerSettings(
        "detector",
        spec.topics,
        batch_records=spec.batch_records,
        sweep_keys=spec.sweep_keys,
        probe_seconds=0.2,
        fetch_seconds=0.2,
    )
    metrics = Metrics()
    worker = Worker(settings, ADetector(), bus=bus, database=database, sealer=SEALER, clock=clock, metrics=metrics)
    return Wired(worker, database, bus, clock, trap, metrics)


async def main(spec: Spec) -> None:
    configure_logging(json=True, level="INFO")
    outbox.IDLE_SECONDS = spec.relay_idle_seconds
    wired = wire(spec)
    loop = asyncio.get_running_loop()

    def obey(line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word == "clock":
            wired.clock.advance_to(datetime.fromisoformat(rest))
            wired.worker.nudge()
        elif word == "stop":
            wired.worker.stop()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(obey, line)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=listen, daemon=True).start()
    await wired.worker.run()
    await wired.database.close()
    passes: dict[str, Any] = dict(wired.trap.passes)
    sys.stdout.write(f"passed {json.dumps(passes)}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(main(Spec(**{**given, "topics": tuple(given["topics"])})))
