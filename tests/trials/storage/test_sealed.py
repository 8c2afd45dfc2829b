"""Documents with a checksum: no changed bit and no cut goes unnoticed; those of older versions open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trials.errors import DamagedFile
from trials.storage.sealed import MOST_JSON_LEVELS, read_sealed, seal, seal_lines, unseal, unseal_lines

pytestmark = pytest.mark.fault("document-changed")

KEYS = ("schema", "id", "config", "samples", "revisions")
DOCUMENT: dict[str, Any] = {"schema": 1, "id": "bip-1", "config": {"lr": 0.1, "name": "é"}, "samples": []}
PATH = Path("config.json")
OLDER = b"---\nspace: {samples: 1}\n"


def flips(content: bytes) -> list[bytes]:
    changed = []
    for i, byte in enumerate(content):
        changed += [content[:i] + bytes([byte ^ (1 << bit)]) + content[i + 1 :] for bit in range(8)]
    return changed


def cuts(content: bytes) -> list[bytes]:
    return [content[:i] for i in range(len(content))]


def test_a_document_comes_back_and_stays_json() -> None:
    content = seal(DOCUMENT)
    assert unseal(content, PATH, ()) == (DOCUMENT, True)
    assert {key: value for key, value in json.loads(content).items() if key != "checksum"} == DOCUMENT


def test_every_changed_bit_and_every_cut_of_json_is_noticed() -> None:
    content = seal(DOCUMENT)
    for changed in (*flips(content), *cuts(content), content + b"\n", content * 2):
        with pytest.raises(DamagedFile, match=r"config\.json is damaged"):
            unseal(changed, PATH, KEYS)


def test_a_document_of_an_older_version_opens_unless_it_holds_more() -> None:
    content = json.dumps(DOCUMENT, indent=1).encode()
    assert unseal(content, PATH, KEYS) == (DOCUMENT, False)
    with pytest.raises(DamagedFile, match="'revisionz'"):
        unseal(json.dumps({**DOCUMENT, "revisionz": {}}).encode(), PATH, KEYS)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"config": ' * 100_000,
        b'{"config": ' + b"[" * (MOST_JSON_LEVELS + 1) + b"]" * (MOST_JSON_LEVELS + 1) + b"}",
        b'{"config": ' + b"9" * 100_000 + b"}",
        b"{NaN: 1}",
        b'{"config": "\xff"}',
        b"[1, 2]",
        b"null",
        b"",
    ],
    ids=["lists", "mappings", "nested", "long number", "NaN key", "no UTF-8", "a list", "null", "empty"],
)
def test_what_is_no_document_is_said_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(DamagedFile) as caught:
        read_sealed(tmp_path / "state.json", KEYS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_changed_bit_and_every_cut_of_lines_is_noticed() -> None:
    first = seal_lines(b"", b"---\na: 1\n")
    content = seal_lines(unseal_lines(first, PATH), b"---\nb: 2\n")
    assert unseal_lines(content, PATH).count(b"---") == 2
    for changed in (*flips(content), *cuts(content)[1:], content + b"---\nc: 3\n"):
        with pytest.raises(DamagedFile, match="does not match its checksum"):
            unseal_lines(changed, PATH)


def test_lines_of_an_older_version_stay_as_they_are_until_something_is_added() -> None:
    assert unseal_lines(OLDER, PATH) == OLDER
    added = seal_lines(OLDER, b"---\nb: 2\n")
    assert added.startswith(OLDER)
    for changed in (*flips(added), *cuts(added)[len(OLDER) + 1 :]):
        with pytest.raises(DamagedFile, match="does not match its checksum"):
            unseal_lines(changed, PATH)
