"""What may stand at a place of a recipe: from the keys that lead there to the type that is declared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from chorus.protocol.config.run import RunConfig


def forms(annotation: Any) -> list[Any]:
    """The forms that a value may have, `None` left out; one, where there is no choice."""
    if get_origin(annotation) is Annotated:
        return forms(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [form for kind in get_args(annotation) if kind is not NoneType for form in forms(kind)]


def declared(place: Sequence[int | str]) -> Any:
    """The annotation of what stands there; None: no such place is known, or it has a choice above it."""
    return reduce(_below, place, RunConfig)


def fields_at(place: Sequence[int | str]) -> dict[str, Any]:
    """The keys of the section that stands there; none, where it is no section."""
    return getattr(_only(declared(place)), "model_fields", {})


def place_of(location: Sequence[int | str]) -> tuple[int | str, ...]:
    """The keys of one of pydantic's locations, which goes on with the name of a form where there is a choice."""
    for end in range(len(location)):
        if len(forms(declared(location[:end]))) > 1:
            return tuple(location[:end])
    return tuple(location)


def _below(annotation: Any, part: int | str) -> Any:
    kind = _only(annotation)
    if part in (fields := getattr(kind, "model_fields", {})):
        return fields[part].annotation
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return get_args(kind)[0] if get_origin(kind) in (list, tuple) else None


def _only(annotation: Any) -> Any:
    found = forms(annotation)
    return found[0] if len(found) == 1 else None
