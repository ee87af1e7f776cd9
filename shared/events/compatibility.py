"""Whether a schema still accepts all that its predecessor accepted.

A type on the wire never changes its meaning: fields may be added (optional, with a default) and limits may be
widened. Anything else is a new `.v2` beside the old.
"""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

_NOT_LOWERED: Final = ("maxLength", "maxItems", "maximum", "exclusiveMaximum")
_NOT_RAISED: Final = ("minLength", "minItems", "minimum", "exclusiveMinimum")
_NOT_CHANGED: Final = ("format", "pattern", "multipleOf")
_MOST_DEPTH: Final = 40


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """What a producer or reader of `old` would trip over in `new`, one sentence each, with the path of the
    field; empty where there is nothing. Both are JSON Schemas as pydantic writes them; references are
    followed within each."""
    return list(_compare(_Side(old), _Side(new), "", 0))


class _Side:
    """A place in one schema, with the document that its references point into."""

    def __init__(self, schema: Schema, root: Schema | None = None) -> None:
        self.root = schema if root is None else root
        while "$ref" in schema:
            target: Any = self.root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
        self.schema = schema

    def at(self, schema: Schema) -> "_Side":
        return _Side(schema, self.root)

    def branches(self) -> list["_Side"]:
        found = self.schema.get("anyOf") or self.schema.get("oneOf")
        return [self.at(branch) for branch in found] if found else [self]

    def types(self) -> set[str]:
        declared = self.schema.get("type")
        return set() if declared is None else {declared} if isinstance(declared, str) else set(declared)

    def values(self) -> list[Any] | None:
        """The only values that are accepted, or None where they are not listed."""
        if "const" in self.schema:
            return [self.schema["const"]]
        listed: list[Any] | None = self.schema.get("enum")
        return listed


def _compare(old: _Side, new: _Side, path: str, depth: int) -> Iterator[str]:
    if depth > _MOST_DEPTH:
        return
    here = path or "the event"
    if old.schema.get("default") != new.schema.get("default") and "default" in old.schema:
        yield f"{here}: the default changed"
    before, after = old.branches(), new.branches()
    if len(before) > 1 or len(after) > 1:
        yield from _compare_branches(before, after, path, depth)
        return
    old, new = before[0], after[0]
    if new.types() and not old.types() <= _with_integers(new.types()):
        yield f"{here}: the type was {_words(old.types())}, now {_words(new.types())}"
        return
    if new.types() and not old.types():
        yield f"{here}: the type is now limited to {_words(new.types())}"
    yield from _compare_limits(old, new, here)
    yield from _compare_properties(old, new, path, depth)
    if "items" in new.schema:
        yield from _compare(old.at(old.schema.get("items", {})), new.at(new.schema["items"]), f"{path}[]", depth + 1)


def _compare_branches(old: list[_Side], new: list[_Side], path: str, depth: int) -> Iterator[str]:
    for branch in old:
        found = [list(_compare(branch, candidate, path, depth + 1)) for candidate in new]
        if not any(not problems for problems in found):
            same_type = [p for p, c in zip(found, new, strict=True) if branch.types() & c.types()]
            if same_type:
                yield from same_type[0]
            else:
                yield f"{path or 'the event'}: {_words(branch.types())} is no longer accepted"


def _compare_limits(old: _Side, new: _Side, here: str) -> Iterator[str]:
    accepted, listed = new.values(), old.values()
    if accepted is not None:
        if listed is None:
            yield f"{here}: now only listed values are accepted"
        else:
            gone = [value for value in listed if value not in accepted]
            if gone:
                yield f"{here}: no longer accepted: {', '.join(map(str, gone))}"
    for name in _NOT_LOWERED + _NOT_RAISED:
        if name in new.schema:
            yield from _narrowed(name, old.schema.get(name), new.schema[name], here)
    if "format" in old.schema and "format" not in new.schema:
        yield f"{here}: format changed"
    for name in _NOT_CHANGED:
        if name in new.schema and old.schema.get(name) != new.schema[name]:
            yield f"{here}: {name} changed"


def _narrowed(name: str, was: float | None, now: float, here: str) -> Iterator[str]:
    if was is None:
        yield f"{here}: {name} is new"
    elif now < was if name in _NOT_LOWERED else now > was:
        yield f"{here}: {name} went from {was} to {now}"


def _compare_properties(old: _Side, new: _Side, path: str, depth: int) -> Iterator[str]:
    before, after = old.schema.get("properties", {}), new.schema.get("properties", {})
    for name, schema in before.items():
        inner = f"{path}.{name}" if path else name
        if name not in after:
            yield f"{inner}: removed"
        else:
            yield from _compare(old.at(schema), new.at(after[name]), inner, depth + 1)
    for name in new.schema.get("required", ()):
        if name not in old.schema.get("required", ()):
            yield f"{path}.{name}: now required" if path else f"{name}: now required"
    if new.schema.get("additionalProperties") is False and old.schema.get("additionalProperties") is not False:
        yield f"{path or 'the event'}: unknown fields are no longer accepted"


def _with_integers(types: set[str]) -> set[str]:
    return types | {"integer"} if "number" in types else types


def _words(types: set[str]) -> str:
    return " or ".join(sorted(types)) or "anything"
