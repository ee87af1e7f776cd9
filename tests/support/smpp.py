"""A small phone network of our own: an SMPP 3.4 server on loopback that keeps what arrives at the phones.

Source: "Short Message Peer to Peer Protocol Specification v3.4", sections 4.1 to 4.11 and 5; receipts as in appendix B.
"""

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.support.processes import LOOPBACK

BIND_TRANSCEIVER, SUBMIT_SM, DELIVER_SM, UNBIND, ENQUIRE_LINK = 0x09, 0x04, 0x05, 0x06, 0x15
ANSWER = 0x80000000
OK, BIND_FAILED, INVALID_DESTINATION, THROTTLED = 0x00, 0x0D, 0x0B, 0x58
PLAIN, UCS2 = 0, 8
HAS_HEADER, IS_RECEIPT = 0x40, 0x04
SINGLE, PART = 140, 134
"""Bytes of text in a part alone, and in one of several."""


class Receipts(Enum):
    """What becomes of the receipts of the messages to come."""

    DELIVERED = "delivered"
    FAILED = "failed"
    NONE = "none"
    TWICE = "twice"
    LATER = "later"
    """Delivered, when `release` is called."""


@dataclass
class Sms:
    """What a phone shows: whole once `parts` is `of`."""

    sender: str
    to: str
    coding: int
    parts: dict[int, bytes] = field(default_factory=dict)
    of: int = 1

    @property
    def whole(self) -> bool:
        return len(self.parts) == self.of

    @property
    def text(self) -> str:
        """Put together before it is read: a gateway may cut in the middle of an emoji."""
        return _text(b"".join(self.parts[number] for number in sorted(self.parts)), self.coding)


class PhoneNetwork:
    """`messages` in the order in which their first parts came. `refuse` is the SMPP status that every message to come
    is answered with; `mute` leaves them without an answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.messages: list[Sms] = []
        self.receipts = Receipts.DELIVERED
        self.refuse = OK
        self.mute = False
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.StreamWriter, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1000)
        self._numbers = itertools.count(1)
        self._open: dict[tuple[str, str, int], Sms] = {}
        self._held: list[bytes] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def stop(self) -> None:
        """Down, with every link cut; what arrived stays."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._links):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    @property
    def bound(self) -> bool:
        """Whether a gateway has logged in."""
        return any(self._links.values())

    async def answer(self, sender: str, to: str, text: str) -> None:
        """A person's message to the shop, in as many parts as it takes."""
        whole, reference = text.encode("utf-16-be"), next(self._numbers) % 256
        pieces = [whole[at : at + PART] for at in range(0, len(whole), PART)] if len(whole) > SINGLE else [whole]
        for number, piece in enumerate(pieces, 1):
            body, kind = piece, 0
            if len(pieces) > 1:
                body, kind = bytes([5, 0, 3, reference, len(pieces), number]) + body, HAS_HEADER
            await self._deliver(_deliver_sm(sender, to, body, kind, UCS2))

    async def release(self) -> None:
        """Send the receipts that were held back."""
        held, self._held = self._held, []
        for body in held:
            await self._deliver(body)

    async def _deliver(self, body: bytes) -> None:
        writer = next(writer for writer, bound in self._links.items() if bound)
        await _write(writer, DELIVER_SM, OK, next(self._numbers), body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._links[writer] = False
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    length, command, _, number = struct.unpack(">IIII", await reader.readexactly(16))
                    await self._handle(writer, command, number, await reader.readexactly(length - 16))
        finally:
            del self._links[writer]
            self._tasks.discard(task)
            writer.transport.abort()

    async def _handle(self, writer: asyncio.StreamWriter, command: int, number: int, body: bytes) -> None:
        if command == BIND_TRANSCEIVER:
            self._links[writer] = True
            await _write(writer, command | ANSWER, OK, number, b"network\x00")
        elif command in {ENQUIRE_LINK, UNBIND}:
            await _write(writer, command | ANSWER, OK, number, b"")
        elif command == SUBMIT_SM and not self.mute:
            await self._submit(writer, number, body)

    async def _submit(self, writer: asyncio.StreamWriter, number: int, body: bytes) -> None:
        if self.refuse:
            await _write(writer, SUBMIT_SM | ANSWER, self.refuse, number, b"")
            return
        submitted = _parse(body)
        id = next(self._ids)
        self._keep(submitted)
        await _write(writer, SUBMIT_SM | ANSWER, OK, number, f"{id}\x00".encode())
        if submitted.wants_receipt:
            await self._report(id, submitted)

    def _keep(self, it: "_Submitted") -> None:
        key = (it.sender, it.to, it.reference)
        if it.of == 1 or key not in self._open:
            self.messages.append(Sms(it.sender, it.to, it.coding, of=it.of))
            self._open[key] = self.messages[-1]
        self._open[key].parts[it.part] = it.short
        if self._open[key].whole:
            del self._open[key]

    async def _report(self, id: int, it: "_Submitted") -> None:
        word, error = ("UNDELIV", "027") if self.receipts is Receipts.FAILED else ("DELIVRD", "000")
        said = f"id:{id} sub:001 dlvrd:001 submit date:2611240900 done date:2611240901 stat:{word} err:{error} text:"
        body = _deliver_sm(
            it.to, it.sender, said.encode() + _text(it.short[:20], it.coding).encode()[:20], IS_RECEIPT, PLAIN
        )
        if self.receipts is Receipts.LATER:
            self._held.append(body)
            return
        for _ in range({Receipts.NONE: 0, Receipts.TWICE: 2}.get(self.receipts, 1)):
            await self._deliver(body)


@dataclass(frozen=True)
class _Submitted:
    sender: str
    to: str
    short: bytes
    coding: int
    wants_receipt: bool
    reference: int = 0
    of: int = 1
    part: int = 1


def _parse(body: bytes) -> _Submitted:
    at = body.index(0) + 1  # service_type
    sender, at = _string(body, at + 2)
    to, at = _string(body, at + 2)
    kind = body[at]
    at = body.index(0, at + 3) + 1  # schedule_delivery_time
    at = body.index(0, at) + 1  # validity_period
    registered, _, coding, _, length = body[at : at + 5]
    short = body[at + 5 : at + 5 + length]
    reference, of, part = 0, 1, 1
    if kind & HAS_HEADER:
        header, short = short[1 : 1 + short[0]], short[1 + short[0] :]
        reference, of, part = header[2:5] if header[0] == 0 else (header[2] << 8 | header[3], header[4], header[5])
    return _Submitted(sender, to, short, coding, bool(registered & 1), reference, of, part)


def _text(short: bytes, coding: int) -> str:
    return short.decode("utf-16-be" if coding == UCS2 else "utf-8", errors="replace")


def _string(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


def _deliver_sm(sender: str, to: str, short: bytes, kind: int, coding: int) -> bytes:
    head = b"\x00" + _address(sender) + _address(to)
    return head + bytes([kind, 0, 0]) + b"\x00\x00" + bytes([0, 0, coding, 0, len(short)]) + short


def _address(number: str) -> bytes:
    """Type of number, numbering plan, digits: a + is never written, it is a type."""
    return bytes([1 if number.startswith("+") else 0, 1]) + number.removeprefix("+").encode() + b"\x00"


async def _write(writer: asyncio.StreamWriter, command: int, status: int, number: int, body: bytes) -> None:
    writer.write(struct.pack(">IIII", 16 + len(body), command, status, number) + body)
    await writer.drain()


@asynccontextmanager
async def phone_network(port: int) -> AsyncIterator[PhoneNetwork]:
    network = PhoneNetwork(port)
    await network.start()
    try:
        yield network
    finally:
        await network.stop()
