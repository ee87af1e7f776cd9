"""Fault cases 25 (forged, replayed and stale webhooks) and 26 (addresses that lead where we must not go)."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.dispatcher.channels.port import Failed, Inbound, Message, Receipt, ReceiptState, Sent
from services.dispatcher.channels.webhook import Webhook
from shared.errors import Reject
from shared.events.deliveries import Channel as Kind
from shared.outbound import Answer, Lost, Outbound, is_public
from tests.support.bridge import SECRET, dumped, is_signed, signed
from tests.support.processes import LOOPBACK, free_port
from tests.support.scripted import Scripted, reply, scripted

RECEIVED = {"type": "message.received", "id": "m-1", "from": "tb-77", "text": "2", "reference": "n1_r1"}
RECEIPT = {"type": "message.receipt", "reference": "n1_r1", "state": "delivered", "at": "2026-11-24T09:00:00+08:00"}


def a_webhook(url: str = "https://bridge.test/hook", **changes: Any) -> Webhook:
    return Webhook(url, SECRET, **changes)


# --- 25: what is posted to us -----------------------------------------------------------------------------------------


def test_what_the_bridge_signed_is_taken() -> None:
    body = dumped(RECEIVED)
    assert a_webhook().inbound({}, signed(body), body) == [Inbound("m-1", "2", "tb-77", "n1_r1")]
    body = dumped(RECEIPT)
    at = datetime(2026, 11, 24, 1, tzinfo=UTC)
    assert a_webhook().receipts({}, signed(body), body) == [Receipt("n1_r1", ReceiptState.DELIVERED, at=at)]


def test_one_good_signature_among_several_is_enough() -> None:
    """A bridge that changes its secret signs with both."""
    body = dumped(RECEIVED)
    headers = signed(body)
    other = signed(body, key=b"x" * 32)["webhook-signature"]
    headers["webhook-signature"] = f"{other} v1a,AAAA {headers['webhook-signature']}"
    assert a_webhook().inbound({}, headers, body)


GOOD = dumped(RECEIVED)


def forged() -> dict[str, tuple[dict[str, str], bytes]]:
    """Made when the test runs: a signature is stale five minutes later."""
    good = signed(GOOD)
    return {
        "no headers": ({}, GOOD),
        "another secret": (signed(GOOD, key=b"x" * 32), GOOD),
        "another body": (good, GOOD.replace(b'"2"', b'"1"')),
        "another id": (good | {"webhook-id": "msg_2"}, GOOD),
        "stale": (signed(GOOD, age=301), GOOD),
        "from the future": (signed(GOOD, age=-400), GOOD),
        "made fresh": (signed(GOOD, age=400) | {"webhook-timestamp": good["webhook-timestamp"]}, GOOD),
        "no time": (good | {"webhook-timestamp": "nan"}, GOOD),
        "endless time": (good | {"webhook-timestamp": "1e400"}, GOOD),
        "no signature": (good | {"webhook-signature": ""}, GOOD),
        "no base64": (good | {"webhook-signature": "v1,%%%"}, GOOD),
        "no form": (good | {"webhook-signature": "v1"}, GOOD),
        "another version": (good | {"webhook-signature": good["webhook-signature"].replace("v1", "v2")}, GOOD),
        "no text": (signed(b"\xff\xfe"), b"\xff\xfe"),
    }


@pytest.mark.parametrize("case", forged())
def test_forged_and_stale_ones_are_refused(case: str) -> None:
    headers, body = forged()[case]
    for read in (a_webhook().receipts, a_webhook().inbound):
        with pytest.raises(PermissionError) as caught:
            read({}, headers, body)
        assert "tb-77" not in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_replay_is_the_same_message_again() -> None:
    """Within five minutes nothing tells a replay from a repeat; its id is signed, and ids are applied once."""
    body = dumped(RECEIVED)
    headers = signed(body)
    hook = a_webhook()
    assert hook.inbound({}, headers, body) == hook.inbound({}, headers, body)


BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"13800138000", ""),
    "no id": (dumped({**RECEIVED, "id": ""}), "id"),
    "no sender": (dumped({k: v for k, v in RECEIVED.items() if k != "from"}), "from"),
    "a receipt": (dumped(RECEIPT), "type"),
    "our own letter": (dumped({"type": "message.send", "id": "n1", "to": "13800138000"}), "type"),
    "a long text": (dumped({**RECEIVED, "text": "13800138000" * 1000}), "text"),
    "a foreign reference": (dumped({**RECEIVED, "reference": "13800138000 %d"}), "reference"),
    "no zone": (dumped({**RECEIVED, "at": "2026-11-24T09:00:00"}), "at"),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD.keys())
def test_signed_nonsense_is_rejected_by_field(body: bytes, field: str) -> None:
    with pytest.raises(Reject) as caught:
        a_webhook().inbound({}, signed(body), body)
    assert caught.value.field == field
    assert "13800138000" not in f"{caught.value} {caught.value.__cause__}"


def test_a_receipts_code_is_a_word_and_no_address() -> None:
    for code, kept in [("BLOCKED", "BLOCKED"), ("13800138000", ""), ("to 13800138000", ""), ("亲您好", "")]:
        body = dumped({**RECEIPT, "state": "failed", "code": code})
        assert a_webhook().receipts({}, signed(body), body)[0].detail == kept


def test_nul_and_half_characters_are_taken_out() -> None:
    body = rb'{"type": "message.received", "id": "m-2", "from": "tb-77", "text": "a\u0000b\ud800c"}'
    assert a_webhook().inbound({}, signed(body), body)[0].text == "abc"


async def test_what_we_post_is_signed_whole() -> None:
    async with scripted(reply(200, b'{"id": "b-9"}')) as bridge:
        hook = a_webhook(bridge.url + "/in", allowed_hosts=[LOOPBACK])
        message = Message("n1_r1-s1", "shop-1", Kind.DM, "tb-77", "亲，晚两天到。", "小店", ("https://img.test/1.jpg",))
        assert await hook.send(message) == Sent("b-9")
        await hook.close()
        (post,) = bridge.requests
    assert (post.method, post.path) == ("POST", "/in")
    assert json.loads(post.body) == {
        "id": "n1_r1-s1",
        "type": "message.send",
        "to": "tb-77",
        "text": "亲，晚两天到。",
        "media": ["https://img.test/1.jpg"],
        "store_id": "shop-1",
        "kind": "dm",
        "reference": "n1_r1-s1",
    }
    assert post.headers["webhook-id"] == "n1_r1-s1"
    assert is_signed(post.headers, post.body)
    assert abs(datetime.now(UTC).timestamp() - int(post.headers["webhook-timestamp"])) < 60


# --- 26: where we post to ---------------------------------------------------------------------------------------------

INSIDE = [
    "0.0.0.0",  # noqa: S104 - an address to be refused, not one to serve at
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "not an address",
]


class Names:
    """A name server of our own: each look-up gets the next answer, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    assert not is_public(address)
    for answer in ([address], ["8.8.8.8", address]):
        out = Outbound("https://bridge.test/", seconds=2, resolve=Names(answer))
        lost = await out.ask("POST", body=b"{}")
        await out.close()
        assert isinstance(lost, Lost)
        assert lost.refused
        assert not lost.left


def test_public_addresses_are_public() -> None:
    assert all(is_public(a) for a in ("8.8.8.8", "223.5.5.5", "2400:3200::1", "2606:4700::1111"))


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.1", "2130706433", "0x7f.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]", "0", "LOCALHOST."],
)
async def test_however_it_is_written(host: str) -> None:
    hook = a_webhook(f"https://{host}:8443/hook")
    outcome = await hook.send(Message("n1", "shop-1", Kind.DM, "tb-77", "你好"))
    await hook.close()
    assert isinstance(outcome, Failed)
    assert outcome.account, "a person has to set another address"


@pytest.mark.parametrize(
    "url",
    [
        "http://bridge.test/",
        "https://bridge.test:22/",
        "https://bridge.test:5432/",
        "https://user:pw@bridge.test/",
        "ftp://bridge.test/",
        "file:///etc/passwd",
        "bridge.test",
        "https:///",
        "",
    ],
)
def test_addresses_that_are_never_called(url: str) -> None:
    with pytest.raises(ValueError, match=r"it ") as caught:
        a_webhook(url)
    assert "bridge.test" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64 at all!!", "密钥"])
def test_secrets_that_protect_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        Webhook("https://bridge.test/", secret)


async def test_a_name_that_changes_between_check_and_call() -> None:
    """Looked up once, and what was found is what is called: the second answer is never asked for."""
    async with scripted(reply(200)) as first, other_address(first.port) as second:
        names = Names([LOOPBACK], ["127.0.0.2"])
        host = f"bridge.test:{first.port}"
        out = Outbound(f"http://{host}/", seconds=2, allowed=[host], resolve=names)
        assert isinstance(await out.ask("POST", body=b"{}"), Answer)
        await out.close()
        assert names.asked == 1
        assert [len(first.requests), len(second.requests)] == [1, 0]
        assert first.requests[0].headers["host"] == host


async def test_the_next_address_is_tried_when_the_first_refuses() -> None:
    async with scripted(reply(200)) as server:
        out = Outbound(
            f"http://bridge.test:{server.port}/",
            seconds=2,
            allowed=["bridge.test"],
            resolve=Names(["127.0.0.3", LOOPBACK]),
        )
        assert isinstance(await out.ask("POST", body=b"{}"), Answer)
        await out.close()
        assert len(server.requests) == 1


@pytest.mark.parametrize(("name", "trusted"), [("bridge.test", True), ("other.test", False)])
async def test_the_certificate_must_be_of_the_name(tmp_path: Path, name: str, trusted: bool) -> None:
    """The address is called, and yet the certificate is checked against the name."""
    serving, asking = certificates(tmp_path, "bridge.test")
    port = free_port()
    server = Scripted(reply(200, b"{}"))
    listening = await asyncio.start_server(server.serve, LOOPBACK, port, ssl=serving)
    out = Outbound(f"https://{name}:{port}/", seconds=5, allowed=[name], tls=asking, resolve=Names([LOOPBACK]))
    answer = await out.ask("POST", body=b"{}")
    await out.close()
    listening.close()
    await server.end()
    if trusted:
        assert isinstance(answer, Answer)
        assert server.requests[0].headers["host"] == f"{name}:{port}"
    else:
        assert isinstance(answer, Lost)
        assert not answer.left
        assert server.requests == []


async def test_settings_of_the_environment_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name a second time, out of our sight."""
    async with scripted(reply(200)) as proxy, scripted(reply(200)) as bridge:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        out = Outbound(bridge.url, seconds=2, allowed=[LOOPBACK])
        assert isinstance(await out.ask("GET", "/"), Answer)
        await out.close()
        assert [len(proxy.requests), len(bridge.requests)] == [0, 1]


@asynccontextmanager
async def other_address(port: int) -> AsyncIterator[Scripted]:
    """Another server on the same port, at another address."""
    server = Scripted(reply(200))
    listening = await asyncio.start_server(server.serve, "127.0.0.2", port)
    try:
        yield server
    finally:
        listening.close()
        await server.end()


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server with a certificate for `name`, and a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "bridge.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem)
    return serving, ssl.create_default_context(cafile=str(pem))
