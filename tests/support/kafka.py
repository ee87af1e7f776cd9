"""A real Apache Kafka broker on this machine, from its jars, without containers.

By hand, in the foreground: `python -m tests.support.kafka --port 9092 --data ./kafka-data`.
"""

import argparse
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.processes import LOOPBACK, end, free_port, wait_until_ready
from tests.support.requires import missing

POM = Path(__file__).parents[2] / "deploy" / "kafka-local" / "pom.xml"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controlled.shutdown.max.retries=1
"""


def needed_tools() -> list[str]:
    """The programs without which no broker starts here: Java, and Maven until the jars have been fetched."""
    return ["java"] if _jars_folder().is_dir() else ["java", "mvn"]


def kafka_jars() -> Path:
    """The folder of the broker's jars; Maven fills it the first time (about 120 MB).

    Raises RuntimeError when Maven fails; a half-filled folder is never left behind.
    """
    jars = _jars_folder()
    if not jars.is_dir():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
            filling = Path(scratch) / "jars"
            _run(
                [
                    "mvn",
                    "-B",
                    "-q",
                    "-f",
                    str(POM),
                    "dependency:copy-dependencies",
                    f"-DoutputDirectory={filling}",
                ]
            )
            if not jars.is_dir():
                filling.rename(jars)
    return jars


class KafkaServer:
    """One broker that is its own controller (KRaft), on loopback, with its data in one folder.

    `stop` and `kill` keep the data and the ports: `start` brings the same broker back. All methods but
    `create_topic` block for seconds; call them by `asyncio.to_thread` where an event loop must go on.
    Topics are not created by use: call `create_topic`.
    """

    def __init__(self, data: Path, *, port: int | None = None, heap: str = "512m") -> None:
        self.data = data
        self.port = port or free_port()
        self._controller_port = free_port()
        self._heap = heap
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """What clients connect to, as host:port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The broker's process, for signals; raises while it is not running."""
        if not self.running:
            raise RuntimeError("the broker is not running")
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process is alive (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the broker, formatting its folder the first time, and return when it serves clients."""
        if self.running:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self._configure()
        log = self.data / "server.log"
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [*self._java("info"), "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_ready(
                self._process,
                lambda: b"Kafka Server started" in log.read_bytes() and self._accepts(),
                seconds=90,
                log=lambda: log.read_text("utf-8", "replace"),
            )
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the broker in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """`stop`, then `start` on the same port and data."""
        self.stop()
        self.start()

    def wait(self) -> int:
        """Block until the broker ends by itself."""
        assert self._process is not None
        return self._process.wait()

    async def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name; underscores in `config` stand for Kafka's dots."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        finally:
            await admin.close()
        return name

    def _configure(self) -> Path:
        properties = self.data / "server.properties"
        logs = self.data / "logs"
        text = _PROPERTIES.format(host=LOOPBACK, port=self.port, controller_port=self._controller_port, logs=logs)
        if not (logs / "meta.properties").exists():
            properties.write_text(text, "utf-8")
            cluster = uuid.uuid4().hex[:22]  # any 22 letters; base64 might begin with a dash, which is an option
            format_ = [
                "kafka.tools.StorageTool",
                "format",
                "--standalone",
                "-t",
                cluster,
                "-c",
                str(properties),
            ]
            _run([*self._java("error"), *format_])
        elif properties.read_text("utf-8") != text:  # ports chosen anew: the quorum of one is reached elsewhere
            properties.write_text(text, "utf-8")
        return properties

    def _java(self, level: str) -> list[str]:
        level_option = f"-Dorg.apache.logging.log4j.level={level.upper()}"
        return ["java", f"-Xmx{self._heap}", level_option, "-cp", f"{kafka_jars()}/*"]

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def _end(self, signal_number: int) -> None:
        if self._process is not None:
            end(self._process, signal_number, seconds=30)
            self._process = None


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def _jars_folder() -> Path:
    version = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text("utf-8"))
    assert version is not None
    return Path.home() / ".cache" / "headsup-kafka" / version[1]


def main() -> None:
    """Run one broker until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.kafka", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092, help="loopback port for clients (default 9092)")
    parser.add_argument("--data", type=Path, help="folder that keeps the topics (default: a throw-away one)")
    parser.add_argument("--heap", default="512m", help="the broker's memory (default 512m)")
    parser.add_argument("--fetch-only", action="store_true", help="fetch the jars and end")
    args = parser.parse_args()
    if absent := missing(*needed_tools()):
        sys.exit("a Kafka broker needs " + " and ".join(absent))
    if args.fetch_only:
        sys.stdout.write(f"{kafka_jars()}\n")
        return
    with tempfile.TemporaryDirectory(prefix="headsup-kafka-") as scratch:
        server = KafkaServer(args.data or Path(scratch) / "data", port=args.port, heap=args.heap)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.start()
            sys.stdout.write(f"{server.bootstrap}\n")
            sys.stdout.flush()
            sys.exit(server.wait())
        except KeyboardInterrupt:
            server.stop()


if __name__ == "__main__":
    main()
