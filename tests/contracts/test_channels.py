"""What every channel guarantees (services/dispatcher/channels/port.py), asked of each in the same words."""

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import pytest
import structlog

from services.dispatcher.channels.assisted import Assisted
from services.dispatcher.channels.kannel import Kannel
from services.dispatcher.channels.port import Channel, Failed, Message, Outcome, Sent, Unknown
from services.dispatcher.channels.sandbox import SMS, Sandbox
from services.dispatcher.channels.webhook import Webhook
from shared.clock import SystemClock
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.store.database import Database
from tests.support.processes import LOOPBACK, free_port
from tests.support.scripted import Play, Scripted, Then, reply, scripted, unreachable

PHONE, CHAT_ID = "13800138000", "tb-customer-77"
TEXT = "亲，您的订单要晚几天到，回复1继续等，回复2退款。"
PASSWORD, HOOK_SECRET = "pass-of-the-gateway", "hook-secret-0123456789"
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECONDS = 0.4
"""The time limit of the channels here: those that must wait for it do so quickly."""

Fixture = Callable[[str], Any]
"""`request.getfixturevalue`: a channel that needs a database asks for it here."""


@dataclass(frozen=True)
class Kit:
    """A channel and how to ask it. `open` gives it at work; its provider, where it has one, answers at the URL.
    `accepted` is the provider's yes, None for a channel that calls nobody. `statuses` says what a bare status means."""

    name: str
    open: Callable[[str, Fixture], AbstractAsyncContextManager[Channel]]
    to: str
    secrets: tuple[str, ...] = ()
    accepted: Play | None = None
    statuses: Callable[[int], str] = lambda _: "unknown"


@asynccontextmanager
async def _closing(channel: Channel) -> AsyncIterator[Channel]:
    try:
        yield channel
    finally:
        await channel.close()


def _kannel(url: str, _: Fixture) -> AbstractAsyncContextManager[Channel]:
    return _closing(
        Kannel(
            url,
            username="shop",
            password=PASSWORD,
            sender="1069",
            callback_base="http://headsup.test",
            secret=HOOK_SECRET,
            timeout=SECONDS,
        )
    )


def _webhook(url: str, _: Fixture) -> AbstractAsyncContextManager[Channel]:
    return _closing(Webhook(url + "/hook?token=in-the-url", SIGNING_SECRET, allowed_hosts=[LOOPBACK], timeout=SECONDS))


@asynccontextmanager
async def _sandbox(_: str, fixture: Fixture) -> AsyncIterator[Channel]:
    database = Database(fixture("database"), pool_size=2)
    try:
        yield Sandbox(SMS, database, SystemClock())
    finally:
        await database.close()


def _assisted(_: str, __: Fixture) -> AbstractAsyncContextManager[Channel]:
    return _closing(Assisted())


def _kannel_status(status: int) -> str:
    if status in {429, 408}:
        return "retry"
    if status == 400:
        return "permanent"
    return "account" if 400 <= status < 500 else "unknown"


def _webhook_status(status: int) -> str:
    if 200 <= status < 300:
        return "sent"
    if status in {429, 408}:
        return "retry"
    if status in {301, 307, 308, 401, 403, 405, 410}:
        return "account"
    return "permanent" if 400 <= status < 500 else "unknown"


KITS = [
    Kit(
        "kannel",
        _kannel,
        PHONE,
        (PASSWORD, HOOK_SECRET),
        reply(202, b"0: Accepted for delivery"),
        _kannel_status,
    ),
    Kit(
        "webhook",
        _webhook,
        CHAT_ID,
        (SIGNING_SECRET, SIGNING_SECRET.removeprefix("whsec_"), "in-the-url"),
        reply(200, b'{"id": "b-1"}'),
        _webhook_status,
    ),
    Kit("sandbox", _sandbox, PHONE),
    Kit("assisted", _assisted, PHONE),
]
CALLING = [kit for kit in KITS if kit.accepted]
STATUSES = [status.value for status in HTTPStatus if status >= 200]

every = pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.name)
calling = pytest.mark.parametrize("kit", CALLING, ids=lambda kit: kit.name)


@dataclass
class Watch:
    """All that was logged while a test ran, at every level, by structlog and by the standard library."""

    records: pytest.LogCaptureFixture
    events: Any

    def nothing_private(self, kit: Kit, *shown: object) -> None:
        """No secret, address or text in the logs or in what is `shown`."""
        told = "\n".join([self.records.text, *map(repr, self.events), *map(repr, shown), *map(str, shown)])
        for private in (*kit.secrets, kit.to, TEXT, TEXT[:8], "%E4%BA%B2"):
            assert private not in told


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as events:
        yield Watch(caplog, events)


def a_message(kit: Kit, channel: Channel) -> Message:
    return Message("n1_r1-s0", "shop-1", channel.features.kinds[0], kit.to, TEXT, "小店", ("https://img.test/1.jpg",))


def kind_of(outcome: Outcome) -> str:
    """An outcome in a word, after checking that it does not contradict itself."""
    match outcome:
        case Sent():
            return "sent"
        case Unknown(detail):
            assert _sentence(detail)
            return "unknown"
        case Failed(detail, permanent, account, retry_after):
            assert _sentence(detail)
            assert [permanent, account, retry_after is not None].count(True) == 1, "a failure says one thing to do"
            return "permanent" if permanent else "account" if account else "retry"


def _sentence(detail: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][\x20-\x7e]{5,150}\.", detail))


# --- every channel ----------------------------------------------------------------------------------------------------


@every
async def test_features_are_whole(kit: Kit, request: pytest.FixtureRequest) -> None:
    async with kit.open(f"http://{LOOPBACK}:{free_port()}", request.getfixturevalue) as channel:
        features = channel.features
        assert re.fullmatch(r"[a-z0-9_-]{1,40}", channel.name)
        assert features.kinds
        assert set(features.kinds) <= set(Kind)
        assert features.address is None or features.address in RecipientKind
        assert features.address is not None or features.by_person or kit.name == "sandbox"  # which reaches everybody
        assert features.longest >= 70


@every
async def test_takes_a_message(kit: Kit, request: pytest.FixtureRequest, watch: Watch) -> None:
    async with (
        scripted(kit.accepted or reply(200)) as provider,
        kit.open(provider.url, request.getfixturevalue) as channel,
    ):
        outcome = await channel.send(a_message(kit, channel))
        assert kind_of(outcome) == "sent"
        assert len(provider.requests) == (1 if kit.accepted else 0)
        watch.nothing_private(kit, outcome, channel, channel.features, await channel.health())


@every
@pytest.mark.parametrize(
    "text", ["", " \n", "长" * 20_000, "half \ud83d a sign"], ids=["empty", "blank", "long", "half"]
)
async def test_refuses_what_cannot_be_sent(kit: Kit, text: str, request: pytest.FixtureRequest, watch: Watch) -> None:
    async with (
        scripted(kit.accepted or reply(200)) as provider,
        kit.open(provider.url, request.getfixturevalue) as channel,
    ):
        outcome = await channel.send(replace(a_message(kit, channel), text=text))
        assert kind_of(outcome) == "permanent"
        assert provider.requests == []
        watch.nothing_private(kit, outcome)


@calling
@pytest.mark.parametrize("reference", ["", "a b", "a\r\nX: 1", "%d", "n" * 129, "单"])
async def test_refuses_a_reference_that_would_not_come_back(
    kit: Kit, reference: str, request: pytest.FixtureRequest
) -> None:
    async with scripted(kit.accepted or reply(200)) as provider, kit.open(provider.url, request.getfixturevalue) as it:
        assert kind_of(await it.send(replace(a_message(kit, it), reference=reference))) == "permanent"
        assert provider.requests == []


@every
async def test_sends_the_same_again_when_asked_again(kit: Kit, request: pytest.FixtureRequest) -> None:
    """A channel neither retries nor swallows: who calls it twice has sent twice."""
    async with (
        scripted(kit.accepted or reply(200)) as provider,
        kit.open(provider.url, request.getfixturevalue) as channel,
    ):
        message = a_message(kit, channel)
        assert [kind_of(await channel.send(message)) for _ in range(2)] == ["sent", "sent"]
        assert len(provider.requests) == (2 if kit.accepted else 0)


# --- channels that call a provider over HTTP --------------------------------------------------------------------------


async def _sent_once(kit: Kit, play: Play, request: pytest.FixtureRequest, watch: Watch) -> tuple[Outcome, Scripted]:
    async with scripted(play) as provider, kit.open(provider.url, request.getfixturevalue) as channel:
        outcome = await channel.send(a_message(kit, channel))
        assert len(provider.requests) == 1, "one call, one request"
        watch.nothing_private(kit, outcome, channel)
        return outcome, provider


@calling
@pytest.mark.parametrize("status", STATUSES)
async def test_every_status(kit: Kit, status: int, request: pytest.FixtureRequest, watch: Watch) -> None:
    body = b"" if status in {204, 205, 304} else b"Said to 13800138000"
    outcome, _ = await _sent_once(kit, reply(status, body), request, watch)
    assert kind_of(outcome) == kit.statuses(status)


@calling
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_follows_no_redirect(kit: Kit, status: int, request: pytest.FixtureRequest, watch: Watch) -> None:
    assert kit.accepted is not None
    async with scripted(kit.accepted) as other:
        play = reply(status, headers={"Location": f"{other.url}/?to={kit.to}"})
        outcome, _ = await _sent_once(kit, play, request, watch)
        assert kind_of(outcome) == kit.statuses(status)
        assert kind_of(outcome) != "sent"
        assert other.requests == []


@calling
@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7.0), ("999999", 3600.0), ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0), ("soon", 30.0), ("-5", 30.0), ("", 30.0)],
)
async def test_a_rate_limit_is_heeded(
    kit: Kit, asked: str, seconds: float, request: pytest.FixtureRequest, watch: Watch
) -> None:
    outcome, _ = await _sent_once(kit, reply(429, b"slow down", {"Retry-After": asked}), request, watch)
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == seconds


@calling
async def test_refused_connection(kit: Kit, request: pytest.FixtureRequest, watch: Watch) -> None:
    async with kit.open(f"http://{LOOPBACK}:{free_port()}", request.getfixturevalue) as channel:
        outcome = await channel.send(a_message(kit, channel))
        assert kind_of(outcome) == "retry"
        assert await channel.health() != ""
        watch.nothing_private(kit, outcome, await channel.health())


@calling
async def test_no_connection_in_time(kit: Kit, request: pytest.FixtureRequest, watch: Watch) -> None:
    with unreachable() as port:
        async with kit.open(f"http://{LOOPBACK}:{port}", request.getfixturevalue) as channel:
            outcome = await channel.send(a_message(kit, channel))
            assert kind_of(outcome) == "retry", "nothing left: it surely did not go out"
            watch.nothing_private(kit, outcome)


HEAD = b"HTTP/1.1 202 Accepted\r\nContent-Type: text/plain\r\n"
BROKEN = {
    "silent": Play(b"", Then.HANG),
    "silent after the status": Play(b"HTTP/1.1 202 Acc", Then.HANG),
    "silent after the headers": Play(HEAD + b"Content-Length: 24\r\n\r\n", Then.HANG),
    "silent within the body": Play(HEAD + b"Content-Length: 24\r\n\r\n0: Accepted", Then.HANG),
    "closed at once": Play(b""),
    "closed within the headers": Play(HEAD),
    "closed within the body": Play(HEAD + b"Content-Length: 24\r\n\r\n0: Accepted"),
    "closed within a chunk": Play(HEAD + b"Transfer-Encoding: chunked\r\n\r\n18\r\n0: Accepted"),
    "reset at once": Play(b"", Then.RESET),
    "reset within the body": Play(HEAD + b"Content-Length: 24\r\n\r\n0: Acc", Then.RESET),
    "garbage": Play(b"\x00\xff\xfe{}garbage 13800138000\r\n\r\n"),
    "another protocol": Play(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "endless": Play(HEAD + b"Content-Length: 9999999\r\n\r\n" + b"0: " + b"a" * 200_000, Then.HANG),
    "endless headers": Play(HEAD + b"X: " + b"a" * 300_000, Then.HANG),
}


@calling
@pytest.mark.parametrize("play", BROKEN.values(), ids=BROKEN.keys())
async def test_half_an_answer_is_unknown(kit: Kit, play: Play, request: pytest.FixtureRequest, watch: Watch) -> None:
    outcome, _ = await _sent_once(kit, play, request, watch)
    assert kind_of(outcome) == "unknown", "the request had left: it may have gone out"


@calling
async def test_an_idle_connection_that_was_closed_costs_nothing(
    kit: Kit, request: pytest.FixtureRequest, watch: Watch
) -> None:
    """The provider says that it keeps the connection, and closes it: the next message has a new one."""
    assert kit.accepted is not None
    play = replace(kit.accepted, raw=kit.accepted.raw.replace(b"Connection: close", b"Connection: keep-alive"))
    async with scripted(play) as provider, kit.open(provider.url, request.getfixturevalue) as channel:
        for count in (1, 2, 3):
            assert kind_of(await channel.send(a_message(kit, channel))) == "sent"
            assert len(provider.requests) == count
