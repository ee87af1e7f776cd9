"""What comes in broken: refused with field and reason, or cleaned, never half applied."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import Reject
from shared.events.envelope import MAX_BODY, decode
from shared.events.orders import CustomerContacted, OrderPaid
from shared.events.text import scrub
from tests.unit.events.examples import EXAMPLES, INCIDENT, LINE
from tests.unit.events.records import Raw, binary, structured

PAID = EXAMPLES["order.paid.v1"]
PHONE = "13800138000"
MODES = pytest.mark.parametrize("make", [binary, structured])


def refused(record: Raw) -> Reject:
    with pytest.raises(Reject) as caught:
        decode(record)
    assert PHONE not in caught.value.reason + caught.value.field
    return caught.value


def without(event: dict[str, Any], path: str) -> dict[str, Any]:
    return changed(event, path, ...)


def changed(event: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the member at `path` replaced, or removed where the value is `...`."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = copy
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copy


@MODES
@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"order_id": 1,}', b"\xef\xbb\xbf{}"])
def test_not_json(make: Any, body: bytes) -> None:
    assert "not JSON" in refused(make("order.paid.v1", body)).reason


@MODES
@pytest.mark.parametrize("body", [b'{"order_id": "\xff"}', b'{"order_id": "\xed\xa0\x80"}', "订单".encode("gb18030")])
def test_not_utf8(make: Any, body: bytes) -> None:
    assert "not UTF-8" in refused(make("order.paid.v1", body)).reason


@MODES
@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1"])
def test_not_an_object(make: Any, body: bytes) -> None:
    assert "object" in refused(make("order.paid.v1", body)).reason


@MODES
@pytest.mark.parametrize("kind", ["order.paid.v2", "order.paid", "Order.Paid.v1", PHONE])
def test_unknown_type(make: Any, kind: str) -> None:
    assert refused(make(kind, PAID)).field == "type"


@MODES
@pytest.mark.parametrize("attribute", ["id", "source", "type", "time", "specversion"])
def test_missing_attribute(make: Any, attribute: str) -> None:
    assert refused(make("order.paid.v1", PAID, **{attribute: None})).field == attribute
    assert refused(make("order.paid.v1", PAID, **{attribute: ""})).field == attribute


@MODES
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("time", "2026-11-11T00:03:21"),
        ("time", "2026-11-11"),
        ("time", "yesterday"),
        ("time", "1794398400"),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("id", " "),
        ("id", "x" * 257),
        ("id", "a\x1fb"),
        ("source", "\t"),
        ("source", "x" * 513),
        ("specversion", "0.3"),
    ],
)
def test_wrong_attribute(make: Any, attribute: str, value: str) -> None:
    assert refused(make("order.paid.v1", PAID, **{attribute: value})).field == attribute


@pytest.mark.parametrize("attribute", ["id", "source", "time", "subject", "traceparent"])
def test_attribute_not_utf8(attribute: str) -> None:
    record = binary("order.paid.v1", PAID, **{attribute: None})
    headers = (*record.headers, (f"ce_{attribute}", b"\xff"))
    assert refused(Raw(record.value, headers)).field == attribute


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/avro",
        b"text/plain",
        b"application/cloudevents-batch+json",
        b"application/cloudevents+avro",
        b"application/json; charset=gb18030",
        b"application/json" + b" " * 1000,
    ],
)
def test_other_content_types(content_type: bytes) -> None:
    record = binary("order.paid.v1", PAID)
    headers = (("content-type", content_type), *record.headers[1:])
    assert refused(Raw(record.value, headers)).field == "content-type"


def test_neither_headers_nor_specversion() -> None:
    assert "no CloudEvent" in refused(Raw(json.dumps(PAID).encode())).reason


def test_tombstone() -> None:
    assert "tombstone" in refused(Raw(None)).reason


def test_structured_without_data() -> None:
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "order.packed.v1", "time": "x"})
    assert refused(Raw(body.encode())).field == "data"


@MODES
@pytest.mark.parametrize(
    "path",
    [
        "order_id",
        "store_id",
        "customer",
        "customer.id",
        "customer.nickname",
        "lines",
        "lines.0.sku",
        "lines.0.name",
        "lines.0.variant",
        "lines.0.quantity",
        "lines.0.unit_price",
        "total",
        "currency",
        "paid_at",
    ],
)
def test_missing_field(make: Any, path: str) -> None:
    error = refused(make("order.paid.v1", without(PAID, path)))
    assert (error.field, error.reason) == (path, "Field required.")


@MODES
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("order_id", 7),
        ("order_id", ""),
        ("order_id", "  \u3000"),
        ("order_id", "x" * 129),
        ("order_id", "a\nb"),
        ("order_id", None),
        ("total", 798.0),
        ("total", 798),
        ("total", "NaN"),
        ("total", "Infinity"),
        ("total", "-1.00"),
        ("total", "1e3"),
        ("total", "٣"),
        ("total", "1.00\n"),
        ("total", "1" * 13),
        ("total", "1.00001"),
        ("total", True),
        ("currency", "yuan"),
        ("paid_at", "2026-11-11T00:03:21"),
        ("paid_at", "2026-11-11"),
        ("paid_at", 1794398400),
        ("paid_at", "1794398400"),
        ("paid_at", "2026-02-30T00:00:00Z"),
        ("paid_at", "0001-01-01T00:00:00+14:00"),
        ("promise_ship_by", "soon"),
        ("lines", []),
        ("lines", {}),
        ("lines.0.quantity", 0),
        ("lines.0.quantity", -1),
        ("lines.0.quantity", "2"),
        ("lines.0.quantity", 2.0),
        ("lines.0.quantity", True),
        ("lines.0.quantity", 10**30),
        ("kind", "gift"),
        ("customer", PHONE),
        ("customer.nickname", 5),
        ("customer.tags", "vip"),
        ("customer.recipients.0", {"kind": "phone"}),
        ("customer.recipients.0", {"kind": "phone", "value": PHONE, "sealed": "c2VhbGVk"}),
        ("customer.recipients.0.kind", PHONE),
        ("customer.recipients.0.expires_at", PHONE),
        ("customer.phone", int(PHONE)),
    ],
)
def test_wrong_kind(make: Any, path: str, value: Any) -> None:
    assert refused(make("order.paid.v1", changed(PAID, path, value))).field == path


@pytest.mark.parametrize(
    ("event_type", "path", "value"),
    [
        ("stock.level_changed.v1", "on_hand", ...),
        ("stock.level_changed.v1", "discontinued", "yes"),
        ("inspection.defect_found.v1", "affects_use", 0),
        ("parcel.scanned.v1", "status", "Lost"),
        ("parcel.scanned.v1", "tracking_no", ...),
        ("trouble.declared.v1", "ids", []),
        ("trouble.declared.v1", "scope", "galaxy"),
        ("order.short.v1", "lines.0.quantity", 0),
        ("order.shipped.v1", "lines.0", {"sku": "x"}),
        ("review.posted.v1", "score", 6),
        ("incident.opened.v1", "cause", "Nobody knows"),
        ("incident.opened.v1", "revision", 0),
        ("incident.resolved.v1", "how", ...),
    ],
)
def test_wrong_kind_in_other_events(event_type: str, path: str, value: Any) -> None:
    assert refused(binary(event_type, changed(EXAMPLES[event_type], path, value))).field == path


def test_a_contact_in_the_clear_is_no_contact() -> None:
    open_contact = changed(INCIDENT, "facts.contacts.0", {"kind": "phone", "value": PHONE})
    assert refused(binary("incident.opened.v1", open_contact)).field.startswith("facts.contacts.0")


@MODES
def test_two_megabytes(make: Any) -> None:
    assert str(MAX_BODY) in refused(make("order.paid.v1", changed(PAID, "campaign", "x" * 2_000_000))).reason


@MODES
@pytest.mark.parametrize(
    ("count", "field", "limit"), [(501, "lines", 500), (5_000, "lines", 500), (10_000, "", MAX_BODY)]
)
def test_ten_thousand_lines(make: Any, count: int, field: str, limit: int) -> None:
    error = refused(make("order.paid.v1", PAID | {"lines": [{"sku": "x"} | LINE_LEAST] * count}))
    assert (error.field, str(limit) in error.reason) == (field, True)


LINE_LEAST = {"name": "", "variant": "", "quantity": 1, "unit_price": "1"}


@MODES
def test_five_hundred_lines_are_fine(make: Any) -> None:
    data = decode(make("order.paid.v1", PAID | {"lines": [LINE] * 500})).data
    assert isinstance(data, OrderPaid)
    assert len(data.lines) == 500


@MODES
@pytest.mark.parametrize(
    "value", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"9" * 900_000]
)
def test_deep_nesting_and_endless_numbers(make: Any, value: bytes) -> None:
    began = time.perf_counter()
    refused(make("order.packed.v1", b'{"order_id": "O-1", "extra": ' + value + b"}"))
    assert time.perf_counter() - began < 1


@MODES
def test_unknown_fields_are_ignored(make: Any) -> None:
    richer = changed(PAID, "customer.shoe_size", 42) | {"loyalty": {"points": [1, 2]}}
    assert decode(make("order.paid.v1", richer)).data == decode(make("order.paid.v1", PAID)).data


@MODES
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"a\\u0000b", "ab"),
        (b"a\x00b", "ab"),
        (b"\\ud800x", "x"),
        (b"x\\uDFFF", "x"),
        (b"\\ud83d\\ud83d\\ude00", "😀"),
        (b"\\ud83d\\u0000\\ude00", ""),
        (b"\\uD83D\\uDE00", "😀"),
        ("😀".encode(), "😀"),
        ("\u202eمرحبا".encode(), "\u202eمرحبا"),
        (b"\\\\u0000", "\\u0000"),
        (b"\\\\\\u0000\\\\ud800", "\\\\ud800"),
        (b"\\u005cu0000", "\\u0000"),
        (b"\\u4f60\\n", "你\n"),
    ],
)
def test_what_cannot_be_stored_is_removed(make: Any, written: bytes, kept: str) -> None:
    data = decode(make("customer.contacted.v1", b'{"order_id": "O-1", "topic": "' + written + b'"}')).data
    assert isinstance(data, CustomerContacted)
    assert data.topic == kept


@MODES
def test_keys_are_cleaned_too(make: Any) -> None:
    data = decode(make("customer.contacted.v1", b'{"order\\u0000_id": "O-1", "\\ud800": {"\\udc00": 1}}')).data
    assert data.key == "O-1"


@MODES
def test_an_id_of_nothing_but_nul_is_none(make: Any) -> None:
    assert refused(make("customer.contacted.v1", b'{"order_id": "\\u0000"}')).field == "order_id"


ODD = st.text(st.characters() | st.sampled_from('\0\ud800\udbff\udc00\udfff\\u"0d8'), max_size=40)


@given(ODD, st.booleans())
@example("\\\0\\\\ud800\\", True)
def test_any_text_loses_only_what_cannot_be_stored(text: str, ascii_only: bool) -> None:
    if ascii_only:
        written = json.dumps(text).encode()
    else:
        written = json.dumps("".join(c for c in text if not "\ud800" <= c <= "\udfff"), ensure_ascii=False).encode()
    joined = json.loads(written)  # JSON joins two surrogates that happen to stand as a pair
    kept = "".join(c for c in joined if c != "\0" and not "\ud800" <= c <= "\udfff")
    data = decode(binary("customer.contacted.v1", b'{"order_id": "O-1", "topic": ' + written + b"}")).data
    assert isinstance(data, CustomerContacted)
    assert data.topic == kept


@given(st.binary(max_size=80), st.sampled_from([binary, structured]))
def test_any_bytes_are_refused_or_read(body: bytes, make: Any) -> None:
    try:
        decode(make("order.packed.v1", body))
    except Reject:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ODD, lambda s: st.lists(s) | st.dictionaries(ODD, s)
    )
)
def test_any_json_in_any_field_is_refused_or_read(value: Any) -> None:
    for field in ("customer", "lines", "total", "paid_at"):
        try:
            decode(binary("order.paid.v1", PAID | {field: value}))
        except Reject as error:
            said = error.reason
        else:
            said = "fine"
        assert said


@given(st.binary(max_size=80))
def test_cleaning_twice_is_cleaning_once(body: bytes) -> None:
    assert scrub(scrub(body)) == scrub(body)
