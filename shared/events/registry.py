"""Every event type that exists: its name on the wire, its model, its topic and its key.

An event is added by writing its class into a module that `_MODULES` lists; nothing else has to know.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Final

from shared.events import cases, deliveries, incidents, notices, orders, parcels, replies, stock, stores, topics
from shared.events.base import Payload

_MODULES: Final[tuple[ModuleType, ...]] = (
    orders, parcels, stock, incidents, stores, notices, deliveries, replies, cases,
)  # fmt: skip


def _events() -> Iterator[type[Payload]]:
    for module in _MODULES:
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, Payload)):
                continue
            if value.__module__ == module.__name__ and "TYPE" in vars(value):
                yield value


def _by_type() -> dict[str, type[Payload]]:
    known: dict[str, type[Payload]] = {}
    for model in _events():
        if model.TYPE in known:
            raise TypeError(f"{model.TYPE} is claimed by {known[model.TYPE].__name__} and {model.__name__}")
        if model.TOPIC not in topics.ROLES:
            raise TypeError(f"{model.TYPE} names a topic that does not exist: {model.TOPIC!r}")
        missing = [field for field in model.KEY if field not in model.model_fields]
        if missing:
            raise TypeError(f"{model.TYPE} is keyed by a field that it does not have: {missing}")
        known[model.TYPE] = model
    return known


MODELS: Final[dict[str, type[Payload]]] = _by_type()
"""All events by their `type` on the wire. To be read only."""


def topic_of(event_type: str) -> str:
    """The topic that events of this type are written to. Raises `KeyError` for a type that does not exist."""
    return MODELS[event_type].TOPIC


def types_of(topic: str) -> tuple[str, ...]:
    """The types that are written to this topic, in the order of their declaration."""
    return tuple(name for name, model in MODELS.items() if topic == model.TOPIC)
