"""What is wrong with a configuration, in the words of its keys, with the key that was probably meant."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["described_faults", "similar_key"]

FILLED_IN = {"data": ("root",), "model": ("preset",), "": ("base",)}
"""Keys of sections that are gone once a file is complete."""
OWN_WORDS = "Value error, "
"""What pydantic puts before our messages."""


def described_faults(error: ValidationError, settings: type[BaseModel]) -> str:
    """All faults in one line, each after its key."""
    return "; ".join(_described(fault["type"], fault["loc"], fault["msg"], settings) for fault in error.errors())


def _described(kind: str, place: tuple[int | str, ...], message: str, settings: type[BaseModel]) -> str:
    parts, section_fields = _walked(place, settings)
    name = ".".join(parts)
    if kind == "extra_forbidden":
        meant = _meant(parts, section_fields, settings)
        return f"{name}: there is no such key" + (f"; did you mean {meant}?" if meant else "")
    return f"{name}: {message.removeprefix(OWN_WORDS)}".removeprefix(": ")


def similar_key(place: Sequence[int | str], settings: type[BaseModel]) -> str | None:
    """The key that an unknown one stands for: one of its section that is spelled alike, else one of another section.

    `place` holds the parts of the unknown key, `settings` is the class of the whole configuration.
    """
    return _meant(*_walked(place, settings), settings)


def _meant(parts: list[str], names: list[str], settings: type[BaseModel]) -> str | None:
    *parents, last = parts
    if alike := get_close_matches(last, [*names, *FILLED_IN.get(".".join(parents), ())], n=1):
        return ".".join([*parents, alike[0]])
    elsewhere = [key for key in _keys(settings, ()) if key.rpartition(".")[2] == last]
    return min(elsewhere, key=len, default=None)


def _walked(place: Sequence[int | str], settings: type[BaseModel]) -> tuple[list[str], list[str]]:
    """The parts of a key as a user writes them, and the fields of the section that it lies in."""
    sections: set[type[BaseModel]] = {settings}
    parts: list[str] = []
    for number, part in enumerate(map(str, place), start=1):
        inner = {model for section in sections for model in _sections_of(section, part)}
        of_several = len(sections) > 1 and not any(part in section.model_fields for section in sections)
        if of_several and number < len(place):
            continue  # pydantic says which kind of section it took
        parts.append(part)
        sections = inner if inner and number < len(place) else sections
    return parts, [name for section in sections for name in section.model_fields]


def _sections_of(section: type[BaseModel], name: str) -> Iterator[type[BaseModel]]:
    """The classes that a field holds, itself or as entries of a list."""
    if name in section.model_fields:
        yield from _models(section.model_fields[name].annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _keys(section: type[BaseModel], parents: tuple[str, ...]) -> Iterator[str]:
    """Every key below a section, except those within lists."""
    for name, field in section.model_fields.items():
        yield ".".join((*parents, name))
        for model in _models(field.annotation):
            if getattr(field.annotation, "__origin__", None) is not tuple:
                yield from _keys(model, (*parents, name))
