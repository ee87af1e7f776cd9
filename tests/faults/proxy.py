"""A TCP proxy on loopback that cuts a connection at a word: what a failing network does at the worst moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

from tests.support.processes import LOOPBACK


class Cut(Enum):
    """When to cut: the word never arrives, or it arrives and its answer does not."""

    BEFORE = "before it arrives"
    AFTER = "before its answer"


class Proxy:
    """Passes bytes between clients and `target`. `armed` lets the next `times` connections that say `word` be cut."""

    def __init__(self, target: int, word: bytes) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._word = word
        self._armed: tuple[Cut, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def arm(self, cut: Cut, times: int = 1) -> None:
        self._armed = (cut, times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self._target)
            with suppress(ConnectionError):
                await self._both_ways(reader, writer, up_reader, up_writer)
            up_writer.transport.abort()
        except OSError:
            pass  # the server is away: so is the proxy
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        answers = asyncio.create_task(_pass(up_reader, writer))
        try:
            while said := await reader.read(65536):
                cut = self._due(said)
                if cut is Cut.AFTER:
                    answers.cancel()
                    up_writer.write(said)
                    await up_writer.drain()
                    await up_reader.read(1)  # it was done: its answer is on the way, and gets lost here
                if cut is not None:
                    return
                up_writer.write(said)
                await up_writer.drain()
        finally:
            answers.cancel()

    def _due(self, said: bytes) -> Cut | None:
        if self._armed is None or self._word not in said:
            return None
        cut, times = self._armed
        self._armed = (cut, times - 1) if times > 1 else None
        self.cuts += 1
        return cut

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while said := await reader.read(65536):
            writer.write(said)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def a_proxy(target: int, word: bytes) -> AsyncIterator[Proxy]:
    proxy = Proxy(target, word)
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
