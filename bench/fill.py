"""Writing a stream to its topics. How fast that goes is no part of any figure."""

from collections.abc import Mapping

from bench.report import Report
from bench.servers import INPUTS, Servers
from bench.stream import Stream
from shared.bus import connect
from shared.bus.port import Message, Partition

CHUNK = 5000


async def fill(servers: Servers, stream: Stream, report: Report) -> int:
    """Append the stream; returns the bytes of all bodies."""
    producer = connect(servers.bus_url).producer()
    await producer.start()
    size = done = 0
    chunk: list[Message] = []
    try:
        for item in stream:
            size += len(item.body)
            chunk.append(item.message())
            if len(chunk) == CHUNK:
                await producer.send(chunk)
                done += len(chunk)
                chunk = []
                report.progress(f"filling: {done:,} of {stream.events:,}", often=True)
        await producer.send(chunk)
    finally:
        await producer.stop()
    return size


async def ends(servers: Servers, *topics: str) -> Mapping[Partition, int]:
    """Where these topics end now (the inputs when none is named)."""
    admin = connect(servers.bus_url).admin()
    try:
        bounds = await admin.bounds(await admin.partitions(topics or INPUTS))
        return {partition: bound.end for partition, bound in bounds.items()}
    finally:
        await admin.close()
