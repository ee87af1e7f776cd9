"""`headsup stop`: the emergency brake, by the bus, so that it works while REST does not."""

import asyncio
import getpass
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import uuid4

import typer

from services.cli.context import AsJson, Data, attached_bus, clock_of, emit_json, err, out
from shared.bus.port import Bus, Partition, Record
from shared.errors import HeadsupError, Reject
from shared.events.envelope import Stamp, decode, event, instant, to_message
from shared.events.stores import ANY, SendingStopped
from shared.events.topics import SETTINGS
from shared.settings import load

SOURCE = "headsup/cli"
CONFIRM_SECONDS: Final = 10.0

Store = Annotated[str, typer.Option("--store", help="One store only.")]
ForScenario = Annotated[str, typer.Option("--scenario", help="One scenario only, such as shipping_delay.")]
ForChannel = Annotated[str, typer.Option("--channel", help="One channel only: sms, dm or chat.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]
Lift = Annotated[bool, typer.Option("--lift", help="Let it go on again.")]


def stop(  # noqa: PLR0917 - a command's options
    store: Store = ANY,
    scenario: ForScenario = ANY,
    channel: ForChannel = ANY,
    reason: Why = "",
    lift: Lift = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Stop all sending, or that of a store, a scenario or a channel, within 5 seconds. What is not yet claimed waits;
    what was sent cannot be undone. **--lift** with the same options lets it go on. Who did it, and why, is in
    `/v1/audit`."""
    settings = load(data=data)
    wanted = SendingStopped(
        store_id=store, scenario=scenario, channel=channel, stopped=not lift, reason=reason, by=getpass.getuser()
    )

    async def brake() -> None:
        clock = await clock_of(settings)
        async with attached_bus(settings) as bus:
            await append(bus, wanted, clock.now())

    asyncio.run(brake())
    if json:
        return emit_json({"store": store, "scenario": scenario, "channel": channel, "stopped": not lift})
    what = ", ".join(f"{name} {value}" for name, value in _named(wanted)) or "everything"
    return out().print(f"{'Goes on again' if lift else 'Stopped'}: {what}.")


async def append(bus: Bus, wanted: SendingStopped, now: datetime) -> None:
    """Durable on return, and in force: the newest stamp of a setting holds, and one that another clock set may be ahead
    of ours. So it is written first, then looked at, and where it does not hold written again just after what does."""
    producer = bus.producer()
    try:
        said = event(wanted, id=str(uuid4()), source=SOURCE, time=now)
        await producer.send([to_message(said)])
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                holds = await _holds(bus, wanted.key)
        except (TimeoutError, HeadsupError):
            err().print("It is written; whether a newer word holds could not be looked up: see /v1/audit.")
            return
        if holds is not None and holds > said.stamp:
            after = instant(holds.time_us + 1)
            await producer.send([to_message(event(wanted, id=str(uuid4()), source=SOURCE, time=after))])
    finally:
        await producer.stop()


class _Reader:
    """A listener of a group that has read nothing yet; `ready` once partitions are there."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.partitions: Collection[Partition] = ()

    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        self.partitions = partitions
        self.ready.set()
        return dict.fromkeys(partitions)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        return None


async def _holds(bus: Bus, key: str) -> Stamp | None:
    """The stamp of what holds for this setting, off the topic itself."""
    reader = _Reader()
    consumer = bus.consumer(f"headsup-stop-{uuid4().hex}", [SETTINGS], reader)
    newest: Stamp | None = None
    await consumer.start()
    try:
        await reader.ready.wait()
        for partition, bounds in (await consumer.bounds(reader.partitions)).items():
            while bounds.first < bounds.end and (consumer.position(partition) or 0) < bounds.end:
                for record in await consumer.fetch(partition, 1000, 0.5):
                    newest = max(filter(None, (newest, _stamp_of(record, key))), default=None)
    finally:
        await consumer.stop()
    return newest


def _stamp_of(record: Record, key: str) -> Stamp | None:
    """None for another setting, and for what nobody can read."""
    try:
        found = decode(record)
    except Reject:
        return None
    return found.stamp if isinstance(found.data, SendingStopped) and found.data.key == key else None


def _named(wanted: SendingStopped) -> list[tuple[str, str]]:
    given = (("store", wanted.store_id), ("scenario", wanted.scenario), ("channel", wanted.channel))
    return [(name, value) for name, value in given if value != ANY]
