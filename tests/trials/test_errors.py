"""Messages of errors are one line, whatever they name."""

from __future__ import annotations

import pickle

import pytest

from trials.errors import AbsentCode, DamagedFile, DataError, UserError, one_line

HOSTILE = "a\nb\x1b[31m\rc"


@pytest.mark.parametrize("kind", [UserError, AbsentCode, DataError, DamagedFile])
def test_line_breaks_and_escapes_in_a_message_are_written_out(kind: type[Exception]) -> None:
    said = str(kind(f"{HOSTILE} é × \\n"))
    assert said == r"a\nb\x1b[31m\rc é × \n"
    assert str(kind(said)) == said == str(pickle.loads(pickle.dumps(kind(said))))


def test_a_text_that_is_printable_stays_as_it_is() -> None:
    assert one_line(HOSTILE) == r"a\nb\x1b[31m\rc"
    assert one_line("") == ""
    assert one_line("größer\\") == "größer\\"
