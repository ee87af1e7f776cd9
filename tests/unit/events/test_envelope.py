"""The envelope: both content modes, there and back."""

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Reject
from shared.events.envelope import (
    Event,
    Stamp,
    decode,
    decode_structured,
    encode,
    encode_structured,
    event,
    event_id,
    to_message,
)
from shared.events.orders import CustomerContacted, OrderPaid
from shared.events.registry import MODELS, topic_of
from shared.events.topics import ROLES, TOPICS
from tests.unit.events.examples import EXAMPLES
from tests.unit.events.records import Raw, binary, structured

NOON = datetime(2026, 11, 11, 12, tzinfo=UTC)
KEYS = {
    "trouble.declared.v1": b"warehouse",
    "stock.level_changed.v1": b"JACKET-RED-M",
    "sku.described.v1": b"JACKET-RED-M",
    "parcel.scanned.v1": b"SF1",
    "parcel.eta_changed.v1": b"SF1",
    "remedy.failed.v1": b"R-1",
    "store.configured.v1": b"shop-1",
    "sending.stopped.v1": b"stop/shop-1/*/sms",
    "wave.released.v1": b"wave/W-1",
    "api_key.set.v1": b"key/erp",
    "wave.paused.v1": b"W-1",
}


def test_there_is_an_example_of_every_event() -> None:
    assert EXAMPLES.keys() == MODELS.keys()


@pytest.mark.parametrize("event_type", EXAMPLES)
def test_both_modes_say_the_same(event_type: str) -> None:
    read = decode(binary(event_type, EXAMPLES[event_type]))
    assert read == decode(structured(event_type, EXAMPLES[event_type]))
    assert type(read.data) is MODELS[event_type]
    assert (read.id, read.source, read.type) == ("evt-1", "/shop/orders", event_type)


@pytest.mark.parametrize("event_type", EXAMPLES)
def test_what_was_written_is_read_back(event_type: str) -> None:
    read = decode(binary(event_type, EXAMPLES[event_type], traceparent="00-ab-cd-01", subject="O-1"))
    message = to_message(read)
    assert decode(message) == read
    assert decode_structured(encode_structured(read)) == read
    assert message.topic == topic_of(event_type)
    assert message.key == KEYS.get(event_type, b"O-1")
    assert message.value is not None
    written = json.loads(message.value)
    assert written.keys() >= EXAMPLES[event_type].keys()


def test_every_topic_has_a_role() -> None:
    assert [spec.name for spec in TOPICS] == list(ROLES)
    assert len(TOPICS) == 12
    assert [spec.name for spec in TOPICS if spec.compacted] == ["headsup.settings.v1"]


def test_the_time_is_in_utc() -> None:
    read = decode(binary("order.packed.v1", EXAMPLES["order.packed.v1"]))
    assert read.time == datetime(2026, 11, 10, 16, 3, 21, tzinfo=UTC)
    assert read.time.tzinfo is UTC


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("content-type", b"application/cloudevents+json"),),
        (("Content-Type", b"Application/CloudEvents+JSON; charset=utf-8"),),
        (("content-type", b"application/json"),),
    ],
)
def test_structured_mode_is_recognised(headers: tuple[tuple[str, bytes], ...]) -> None:
    body = structured("order.packed.v1", {"order_id": "O-1"}).value
    assert decode(Raw(body, headers)).type == "order.packed.v1"


def test_a_body_without_content_type_is_json() -> None:
    record = binary("order.packed.v1", {"order_id": "O-1"})
    assert decode(Raw(record.value, record.headers[1:])).type == "order.packed.v1"


@pytest.mark.parametrize("make", [binary, structured])
def test_extensions_and_subject_are_kept(make: Any) -> None:
    record = make("order.packed.v1", {"order_id": "O-1"}, traceparent="00-ab-cd-01", subject="O-1", dataschema="urn:x")
    read = decode(record)
    assert read.extensions == {"traceparent": "00-ab-cd-01"}
    assert read.subject == "O-1"
    assert decode(Raw(*encode(read))) == read


@pytest.mark.parametrize("make", [binary, structured])
def test_an_event_without_extensions_has_none(make: Any) -> None:
    read = decode(make("order.packed.v1", {"order_id": "O-1"}))
    assert (read.extensions, read.subject) == ({}, None)


def test_extensions_are_bounded() -> None:
    with pytest.raises(Reject, match="more than 32"):
        decode(binary("order.packed.v1", {"order_id": "O-1"}, **{f"x{i}": "y" for i in range(33)}))
    with pytest.raises(Reject, match="longer than"):
        decode(structured("order.packed.v1", {"order_id": "O-1"}, x="y" * 5000))


def test_a_phone_is_short_for_a_recipient() -> None:
    paid = EXAMPLES["order.paid.v1"]
    customer = {"id": "C-1", "nickname": "", "phone": "13800138000"}
    read = decode(binary("order.paid.v1", paid | {"customer": customer})).data
    assert isinstance(read, OrderPaid)
    assert [(r.kind, r.value) for r in read.customer.recipients] == [("phone", "13800138000")]
    assert read.customer.phone is None
    again = customer | {"recipients": [{"kind": "phone", "value": "13800138000"}]}
    assert decode(binary("order.paid.v1", paid | {"customer": again})).data == read


def test_people_are_kept_out_of_repr() -> None:
    shown = repr(decode(binary("order.paid.v1", EXAMPLES["order.paid.v1"])))
    assert "O-1" in shown
    assert "15500001234" not in shown
    assert "小鱼" not in shown


def test_ids_are_derived() -> None:
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, "headsup")
    assert event_id("S-1", "O-1", "", "x") == str(uuid.uuid5(namespace, "S-1\x1fO-1\x1f\x1fx"))
    assert event_id("a", "bc") != event_id("ab", "c")


def test_our_own_event() -> None:
    told = event(CustomerContacted(order_id="O-1"), id="1", source="headsup", time=NOON)
    assert told.type == "customer.contacted.v1"
    assert decode(to_message(told)) == told
    assert hash(told) == hash(decode(to_message(told)))
    elsewhere = NOON.astimezone(timezone(timedelta(hours=8)))
    assert event(told.data, id="1", source="headsup", time=elsewhere) == told


def test_a_time_without_offset_is_not_written() -> None:
    naive = datetime(2026, 11, 11)  # noqa: DTZ001
    with pytest.raises(ValueError, match="offset"):
        event(CustomerContacted(order_id="O-1"), id="1", source="headsup", time=naive)
    told: Event[CustomerContacted] = Event(
        "1", "headsup", "customer.contacted.v1", naive, CustomerContacted(order_id="O-1")
    )
    with pytest.raises(ValueError, match="offset"):
        encode(told)


def test_stamps_order_by_time_then_source_then_id() -> None:
    in_order = [
        Event(id, source, "t", NOON + timedelta(microseconds=us), CustomerContacted(order_id="O-1")).stamp
        for us, source, id in [(-1, "z", "9"), (0, "a", "2"), (0, "b", "1"), (0, "b", "2"), (1, "a", "1")]
    ]
    assert in_order[1] == Stamp(1_794_398_400_000_000, "a", "2")
    for shuffled in permutations(in_order):
        assert sorted(shuffled) == in_order


PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
IDS = PRINTABLE.filter(lambda text: bool(text.strip()))


@given(
    id=IDS,
    source=IDS,
    topic=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60),
    time=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))])).filter(
        lambda t: 1 < t.year < 9999
    ),
    extension=PRINTABLE,
)
def test_any_event_survives_the_journey(id: str, source: str, topic: str, time: datetime, extension: str) -> None:
    told = event(
        CustomerContacted(order_id="O-1", topic=topic),
        id=id,
        source=source,
        time=time,
        extensions={"traceparent": extension},
    )
    assert decode(to_message(told)) == told
    assert decode_structured(encode_structured(told)) == told
