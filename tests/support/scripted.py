"""An HTTP server on loopback that keeps every request and answers, or does not, as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, urlsplit

from tests.support.processes import LOOPBACK


class Then(Enum):
    """What happens when the bytes have been written."""

    CLOSE = "the connection ends in order"
    RESET = "the connection breaks"
    HANG = "nothing, for ever"


@dataclass(frozen=True)
class Play:
    """The bytes that a request is answered with."""

    raw: bytes
    then: Then = Then.CLOSE


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Play:
    """A whole and proper answer."""
    lines = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Play(head.encode() + b"\r\n" + body)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Scripted:
    """Answers every request with `play`."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.requests: list[Request] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await _read(reader)
                self.requests.append(request)
                play = await self.answer(request)
                writer.write(play.raw)
                await writer.drain()
                if play.then is Then.HANG:
                    await reader.read()  # until the other side has had enough
                if play.then is Then.RESET:
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                    writer.transport.abort()
                    return
                writer.close()
                await writer.wait_closed()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def answer(self, request: Request) -> Play:
        """What this request is answered with; servers with a mind of their own say otherwise."""
        return self.play

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def scripted(play: Play) -> AsyncIterator[Scripted]:
    server = Scripted(play)
    listening = await asyncio.start_server(server.serve, LOOPBACK, 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.end()


@contextmanager
def unreachable() -> Iterator[int]:
    """A port on which a connection is neither made nor refused: its queue is full and nobody empties it."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for caller in (first, second):
            caller.setblocking(False)
            caller.connect_ex((LOOPBACK, port))
        yield port


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers, body)
