"""What a member knows about one partition that it holds."""

import asyncio

from shared.errors import HeadsupError


class Held:
    """`position` is the next offset to hand out, None until the start is known; `adrift` says that aiokafka
    may stand somewhere else; `error` is why the start is not known."""

    __slots__ = ("_event", "adrift", "error", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        self.adrift = True
        self.error: HeadsupError | None = None
        self._event = asyncio.Event()

    def place(self, offset: int) -> None:
        self.position = offset
        self.adrift = False
        self.error = None
        self.changed()

    def fail(self, error: HeadsupError) -> None:
        self.error = error
        self.changed()

    def changed(self) -> None:
        self._event.set()

    async def change(self, until: float) -> bool:
        """Wait for a change; False when the loop's time `until` came first."""
        try:
            async with asyncio.timeout_at(until):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
