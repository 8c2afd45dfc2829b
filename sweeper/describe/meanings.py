"""What fields mean: read from the section ``Attributes`` of their classes' docstrings."""

from __future__ import annotations

import functools
import inspect
import re

_SECTION = re.compile(r"^Attributes:\n(.*?)(?=^\S|\Z)", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"\s*(?P<names>\w+(?:, \w+)*):\s(?P<meaning>.*)", re.DOTALL)
_ROLE = re.compile(r":\w+:`[~.]?([^`]*)`")


@functools.cache
def meanings_of(cls: type) -> dict[str, str]:
    """Return what each field of a class means, as one line of plain text by name.

    A class that says nothing of a field that it inherits means by it what its base class means.
    """
    found: dict[str, str] = {}
    for one in cls.__mro__:
        section = _SECTION.search(inspect.cleandoc(one.__dict__.get("__doc__") or ""))
        for entry in re.split(r"\n(?=    \S)", f"\n{section[1]}") if section else ():
            match = _ENTRY.fullmatch(entry)
            for name in match["names"].split(", ") if match else ():
                found.setdefault(name, _as_in_yaml(plain_text(match["meaning"])) if match else "")
    return found


def _as_in_yaml(text: str) -> str:
    """The text with Python's None, True and False as YAML writes them."""
    return re.sub(r"\b(None|True|False)\b", lambda word: {"None": "null"}.get(word[0], word[0].lower()), text)


def plain_text(text: str) -> str:
    """Return docstring text as one line without markup.

    >>> plain_text("see ``a``\\n  and :func:`.b.c`")
    'see a and b.c'
    """
    return _ROLE.sub(r"\1", " ".join(text.split())).replace("``", "")


def summary_of(described: object) -> str:
    """Return the first paragraph of a docstring as one line of plain text; empty without one.

    Docstrings that a class inherits, and those of builtin types, do not count.
    """
    own = described.__dict__.get("__doc__") if isinstance(described, type) else getattr(described, "__doc__", None)
    return plain_text(inspect.cleandoc(own or "").partition("\n\n")[0])


def paragraphs_of(text: str) -> list[str]:
    """Return the paragraphs of a docstring: prose as one line each, indented ones (formulas) as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return [one if "\n  " in f"\n{one}" else plain_text(one) for one in paragraphs if one.strip()]
