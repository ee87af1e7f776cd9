"""The README's commands, run as they stand there, and what they bring about.

A block is run when a comment such as `<!-- test: story -->` stands above it. What is changed is where it happens: a
folder of its own, which looks like the repository, and free ports in place of 8080 and 9092.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.support.processes import end, free_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^<!-- test: (.+?) -->\n```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PHONE = "13812345678"
SECONDS = 60


def blocks(tag: str) -> list[str]:
    found = [body for name, body in BLOCK.findall((ROOT / "README.md").read_text("utf-8")) if name == tag]
    assert found, f"the README has no block marked {tag!r}"
    return found


class Reader:
    """Somebody who follows the README in a folder and a shell of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.http = free_port()
        self._kafka = free_port()
        for part in ROOT.iterdir():
            if part.name not in {".git", ".headsup", "headsup.toml"}:
                (folder / part.name).symlink_to(part)

    def run(self, tag: str, index: int = 0) -> str:
        """What a block prints."""
        done = subprocess.run(
            self._shell(tag, index), cwd=self._folder, env=self._environment(), capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, tag: str, ready: Callable[[str], bool]) -> Iterator[None]:
        """A block that goes on until it is interrupted."""
        log = self._folder / f"{tag}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                self._shell(tag, 0), cwd=self._folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=sink,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + SECONDS
            while not ready(log.read_text("utf-8")):
                assert process.poll() is None, log.read_text("utf-8")
                assert time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.1)
            yield
        finally:
            end(process, 2, seconds=30)
        assert "Traceback" not in log.read_text("utf-8")

    def is_ready(self, _: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _shell(self, tag: str, index: int) -> list[str]:
        script = blocks(tag)[index].replace("8080", str(self.http)).replace("9092", str(self._kafka))
        # The last command of a block that goes on takes the shell's place, so that Ctrl-C reaches it.
        *first, last = script.rstrip().split("\n")
        return ["bash", "-euc", "\n".join([*first, f"exec {last}"]) if tag in GOING_ON else script]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADSUP_")}
        return {**kept, "HEADSUP_PORT": str(self.http)}


GOING_ON = {"story server", "kafka broker", "kafka server"}


@pytest.fixture
def reader(workspace: Path, unique: str) -> Reader:
    folder = workspace / f"readme-{unique}"
    folder.mkdir(mode=0o755)
    return Reader(folder)


def documents(text: str) -> list[dict[str, object]]:
    """JSON documents that follow one another."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, after = decoder.raw_decode(text)
        found.append(document)
        text = text[after:]
    return found


@pytest.mark.requires("make")
def test_the_two_commands_are_targets_and_the_second_is_headsup_up() -> None:
    [setup, up] = blocks("first run")[0].split("\n")[:2]
    assert setup == "make setup"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    command = [*up.split(), "-n", "-o", ".venv/ready"]
    told = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ".venv/bin/headsup up"


@pytest.mark.requires("curl")
def test_the_story_of_one_order(reader: Reader) -> None:
    with reader.running("story server", reader.is_ready):
        assert reader.run("story", 0).strip() == "1 published, 0 refused."
        assert json.loads(reader.run("story", 1)) == {"now": "2026-12-13T12:00:00Z"}
        texts = reader.run("story", 2)
        channels = re.findall(r"^(sms|dm)$", texts, re.MULTILINE)
        assert sorted(channels) == ["dm", "sms"]
        assert texts.count("12月16日") >= 2  # the fallback: two days after the promise
        assert "小鱼" in texts
        assert "快递" not in texts
        accepted, moved, case = documents(reader.run("story", 3))
        assert accepted["reply_id"]
        assert moved == {"now": "2026-12-13T12:01:00Z"}
        assert case["choice"] == "refund"
        types = [entry["type"] for entry in case["timeline"]]  # type: ignore[attr-defined]
        for told in ("incident.opened", "notice.sent", "reply.received", "choice.made", "remedy.requested"):
            assert f"{told}.v1" in types
        assert PHONE not in str(case)


@pytest.mark.requires("kcat", "java")
def test_an_event_by_hand_on_a_real_broker_gives_an_incident(reader: Reader) -> None:
    with (
        reader.running("kafka broker", lambda log: "127.0.0.1:" in log),
        reader.running("kafka server", reader.is_ready),
    ):
        reader.run("kafka", 0)
        headers, record = reader.run("kafka", 1).strip().split("\n")
    assert "ce_type=incident.opened.v1" in headers
    key, body = record.split(" ", 1)
    incident = json.loads(body)
    assert key == incident["order_id"] == "T2001"
    assert incident["scenario"] == "shipping_delay"
    assert incident["evidence"] == ["T2001-paid"]
    assert incident["facts"]["contacts"][0]["sealed"]
    assert PHONE not in body
