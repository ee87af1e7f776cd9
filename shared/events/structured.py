"""The structured content mode: attributes and data in one JSON object, read in one pass by type."""

from typing import Annotated, Any, Final, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from shared.events.base import Payload
from shared.events.registry import MODELS


class Attributes(BaseModel):
    """What a structured event has besides its data. Limits are `envelope`'s, the same for both modes."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    time: str
    subject: str | None = None
    datacontenttype: str | None = None
    data: Payload


def _of(name: str, model: type[Payload]) -> type[Attributes]:
    kind: Any = Literal[name]
    return create_model(f"Structured{model.__name__}", __base__=Attributes, type=(kind, ...), data=(model, ...))


def _adapter() -> TypeAdapter[Any]:
    of_any_type: Any = Union[tuple(_of(name, model) for name, model in MODELS.items())]  # noqa: UP007
    return TypeAdapter(Annotated[of_any_type, Field(discriminator="type")])


STRUCTURED: Final = _adapter()
"""Validates the JSON of any known event into `Attributes` with the payload of its type."""
