"""A member in a process of its own, for tests that kill it.

`python -m tests.contracts.bus_member URL GROUP TOPIC`: joins, reads, prints a line for each record, commits nothing.
"""

import asyncio
import sys
from collections.abc import Collection, Mapping

from shared.bus import connect
from shared.bus.port import Partition
from shared.store.database import Database


class _FromTheCommit:
    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        return {}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        return


async def main(url: str, group: str, topic: str) -> None:
    local = not url.startswith("kafka:")
    bus = connect("local:", Database(url).engine) if local else connect(url)
    consumer = bus.consumer(group, [topic], _FromTheCommit())
    await consumer.start()
    while True:
        for partition in consumer.assignment:
            for record in await consumer.fetch(partition, 10, 0.1):
                sys.stdout.write(f"{record.partition} {record.offset}\n")
                sys.stdout.flush()
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
