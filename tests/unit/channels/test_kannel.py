"""What Kannel says and calls back with, read without a gateway."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.dispatcher.channels.kannel import Kannel, judged, status_said
from services.dispatcher.channels.port import Failed, Inbound, Receipt, ReceiptState, Sent
from shared.errors import Reject

SECRET = "hook-secret-0123456789"
UP = "<gateway><box><type>smsbox</type></box><smscs><smsc><status>online 5s</status></smsc></smscs></gateway>"


def a_kannel(**changes: Any) -> Kannel:
    given = {
        "url": "http://127.0.0.1:13013",
        "username": "u",
        "password": "p",
        "sender": "1069",
        "callback_base": "http://headsup.test",
        "secret": SECRET,
    }
    return Kannel(**{**given, **changes})


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, "0: Accepted for delivery", Sent()),
        (202, "3: Queued for later delivery", Sent()),
        (202, "Sent.", Sent()),
        (403, "Not routable. Do not try again.", Failed("The gateway has no route for this number.", permanent=True)),
        (503, "Temporal failure, try again later.", Failed("The gateway's queue is full.", retry_after=9.0)),
        (
            403,
            "Authorization failed for sendsms",
            Failed("The gateway refuses our user name or password.", account=True),
        ),
        (
            400,
            "Number(s) has/have been denied by white- and/or black-lists.",
            Failed("The gateway refuses the number or the text.", permanent=True),
        ),
        (
            400,
            "Sender missing and no global set, rejected",
            Failed("The gateway refuses what we ask of it (400).", account=True),
        ),
    ],
)
def test_the_table_of_answers(status: int, body: str, outcome: Sent | Failed) -> None:
    assert judged(status, body, 9.0) == outcome


@pytest.mark.parametrize(
    ("type", "state"),
    [("1", "delivered"), ("2", "failed"), ("4", "accepted"), ("8", "accepted"), ("16", "failed")],
)
def test_receipts(type: str, state: str) -> None:
    query = {"id": "n_1-2", "type": type, "answer": "id:7 sub:001 stat:EXPIRED err:0a1 text:13800138000 亲"}
    assert a_kannel().receipts(query, {}, b"") == [Receipt("n_1-2", ReceiptState(state), "EXPIRED 0a1")]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "id"),
        ({"id": "13800138000 x", "type": "1"}, "id"),
        ({"id": "a" * 129, "type": "1"}, "id"),
        ({"id": "n1", "type": "13800138000"}, "type"),
        ({"id": "n1"}, "type"),
    ],
)
def test_receipts_that_make_no_sense(query: dict[str, str], field: str) -> None:
    with pytest.raises(Reject) as caught:
        a_kannel().receipts(query, {}, b"")
    assert caught.value.field == field
    assert "1380" not in str(caught.value)


def test_inbound() -> None:
    query = {"from": " 8613800138000", "to": "1069", "text": "我要\x00退款", "id": "u-1", "ts": "1764025200"}
    (found,) = a_kannel().inbound(query, {}, b"")
    assert found == Inbound("u-1", "我要退款", "8613800138000", at=datetime(2025, 11, 24, 23, tzinfo=UTC))
    assert "8613" not in repr(found)
    assert "退款" not in repr(found)


@pytest.mark.parametrize("ts", ["", "soon", "-1", "9" * 30, "٣"])
def test_inbound_without_text_or_time(ts: str) -> None:
    """`omit-empty` leaves out what is empty."""
    assert a_kannel().inbound({"from": "+861", "id": "u-1", "ts": ts}, {}, b"") == [Inbound("u-1", "", "+861")]


@pytest.mark.parametrize(("query", "field"), [({"id": "u-1"}, "from"), ({"from": "1380"}, "id")])
def test_inbound_that_makes_no_sense(query: dict[str, str], field: str) -> None:
    with pytest.raises(Reject) as caught:
        a_kannel().inbound(query, {}, b"")
    assert caught.value.field == field


def test_status_page() -> None:
    assert status_said(UP) == ""
    assert "does not let us in" in status_said("<?xml version='1.0'?><error>Denied</error>")
    assert "routes" in status_said(UP.replace("online", "re-connecting"))
    assert "smsbox" in status_said(UP.replace("smsbox", "wapbox"))


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://gw-of-ours/"},
        {"url": "http://user:gw-of-ours@host"},
        {"url": "gw-of-ours"},
        {"url": "http://"},
        {"url": "http://gw-of-ours:99999999"},
        {"secret": "gw-of-ours"},
        {"secret": "gw-of-ours/0123456789"},
        {"callback_base": "http://gw-of-ours/%d"},
        {"admin_url": "gw-of-ours"},
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|characters|address") as caught:
        a_kannel(**changes)
    assert "gw-of-ours" not in str(caught.value)
    assert caught.value.__cause__ is None
