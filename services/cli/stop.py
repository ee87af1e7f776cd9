"""`headsup stop`: the emergency brake, by the bus, so that it works while REST does not."""

import asyncio
import getpass
from typing import Annotated
from uuid import uuid4

import typer

from services.cli.context import AsJson, Data, attached_bus, clock_of, emit_json, out
from shared.events.envelope import event, to_message
from shared.events.stores import ANY, SendingStopped
from shared.settings import load

SOURCE = "headsup/cli"

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

    async def append() -> None:
        clock = await clock_of(settings)
        async with attached_bus(settings) as bus:
            producer = bus.producer()
            try:
                now = clock.now()
                await producer.send([to_message(event(wanted, id=str(uuid4()), source=SOURCE, time=now))])
            finally:
                await producer.stop()

    asyncio.run(append())
    if json:
        return emit_json({"store": store, "scenario": scenario, "channel": channel, "stopped": not lift})
    what = ", ".join(f"{name} {value}" for name, value in _named(wanted)) or "everything"
    return out().print(f"{'Goes on again' if lift else 'Stopped'}: {what}.")


def _named(wanted: SendingStopped) -> list[tuple[str, str]]:
    given = (("store", wanted.store_id), ("scenario", wanted.scenario), ("channel", wanted.channel))
    return [(name, value) for name, value in given if value != ANY]
