"""A real Kannel gateway on loopback: bearerbox and smsbox in the foreground, with a folder of their own.

Never the machine's own service. The spool outlives a kill, so every test has a fresh folder."""

import asyncio
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.support.processes import LOOPBACK, end, free_port, wait_until_ready

USER, PASSWORD, SENDER = "headsup-user", "pass-of-kannel", "10690001"
STATUS_PASSWORD = "st-of-kannel"
READY_SECONDS = 20.0

_CONFIGURATION = """\
group = core
admin-port = {admin}
admin-interface = 127.0.0.1
admin-password = adm
status-password = {status_password}
smsbox-port = {smsbox}
smsbox-interface = 127.0.0.1
box-deny-ip = "*.*.*.*"
box-allow-ip = "127.0.0.1"
admin-deny-ip = "*.*.*.*"
admin-allow-ip = "127.0.0.1"
log-file = "{folder}/log/bearerbox.log"
log-level = 1
access-log = "{folder}/log/access.log"
store-type = spool
store-location = "{folder}/spool"
dlr-storage = spool
dlr-spool = "{folder}/dlrspool"
sms-resend-freq = 2
sms-resend-retry = 3

group = smsc
smsc = smpp
smsc-id = SMPP
host = 127.0.0.1
port = {network}
transceiver-mode = true
smsc-username = user
smsc-password = secret
system-type = cp
interface-version = 34
msg-id-type = 0x00
alt-charset = UTF-8
enquire-link-interval = 30
max-pending-submits = 50
reconnect-delay = 1

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = {smsbox}
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1
log-file = "{folder}/log/smsbox.log"
log-level = 1
access-log = "{folder}/log/smsbox-access.log"
mo-recode = true
http-request-retry = 3
http-queue-delay = 1

group = sendsms-user
username = {user}
password = {password}
concatenation = true
max-messages = 10
default-smsc = SMPP
user-allow-ip = 127.0.0.1

group = sms-service
keyword = default
catch-all = true
get-url = "{inbound}?from=%p&to=%P&text=%b&coding=%c&charset=%C&ts=%T&id=%I&smsc=%i"
accepted-smsc = SMPP
max-messages = 0
omit-empty = true
"""


class Gateway:
    """One gateway. `network_port` is where its phone network is or will be; `inbound` the address that it calls with
    customers' messages."""

    def __init__(self, folder: Path, network_port: int, inbound: str) -> None:
        self.folder = folder
        self.admin_port, self.sendsms_port, smsbox_port = free_port(), free_port(), free_port()
        for name in ("log", "spool", "dlrspool"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._configuration = folder / "kannel.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                admin=self.admin_port,
                smsbox=smsbox_port,
                sendsms=self.sendsms_port,
                network=network_port,
                inbound=inbound,
                user=USER,
                password=PASSWORD,
                status_password=STATUS_PASSWORD,
            )
        )
        self._bearerbox: subprocess.Popen[bytes] | None = None
        self._smsbox: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.sendsms_port}"

    @property
    def admin_url(self) -> str:
        return f"http://{LOOPBACK}:{self.admin_port}"

    def start(self) -> None:
        """Bearerbox first: smsbox panics without it."""
        self._bearerbox = self._run("bearerbox")
        wait_until_ready(
            self._bearerbox, lambda: "Status: running" in self.status(), seconds=READY_SECONDS, log=self.log
        )
        self._smsbox = self._run("smsbox")
        wait_until_ready(self._smsbox, lambda: "smsbox:" in self.status(), seconds=READY_SECONDS, log=self.log)

    def stop(self) -> None:
        """In order; both are gone when it returns."""
        if self._bearerbox is not None:
            end(self._bearerbox, signal.SIGTERM, seconds=10)
        self._end_smsbox()

    def kill(self) -> None:
        """As by a loss of power. smsbox would start itself anew under another pid, so it goes first."""
        self._end_smsbox()
        if self._bearerbox is not None:
            end(self._bearerbox, signal.SIGKILL, seconds=10)

    def suspend(self) -> None:
        """smsbox takes messages, and bearerbox does not say what became of them."""
        if self._bearerbox is not None:
            self._bearerbox.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._bearerbox is not None:
            self._bearerbox.send_signal(signal.SIGCONT)

    def status(self) -> str:
        url = f"{self.admin_url}/status?password={STATUS_PASSWORD}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback address
                return str(answer.read().decode(errors="replace"))
        except (urllib.error.URLError, OSError):
            return ""

    def log(self) -> str:
        """The ends of both logs."""
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in sorted((self.folder / "log").glob("*box.log")))

    def _run(self, program: str) -> subprocess.Popen[bytes]:
        command = [program, "-v", "4", str(self._configuration)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def _end_smsbox(self) -> None:
        if self._smsbox is not None:
            end(self._smsbox, signal.SIGKILL, seconds=10)
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["name"] == "smsbox" and str(self._configuration) in (process.info["cmdline"] or []):
                process.kill()


@asynccontextmanager
async def kannel(folder: Path, network_port: int, inbound: str) -> AsyncIterator[Gateway]:
    """A running gateway, ended at the end. Beside the loop: it takes its leave of a network that may live on it."""
    gateway = Gateway(folder, network_port, inbound)
    try:
        await asyncio.to_thread(gateway.start)
        yield gateway
    finally:
        await asyncio.to_thread(gateway.stop)
