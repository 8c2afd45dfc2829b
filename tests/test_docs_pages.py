"""The pages of the documentation: their YAML is YAML, docs/spaces.md begins with a space, and nothing stands twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sweeper.space.load import load_space
from trials.yaml_text import parse_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_block_can_be_read(page: Path) -> None:
    for number, block in enumerate(blocks(page)):
        parse_yaml(block, f"block {number} of {page.name}")  # raises a UserError, also of a key that occurs twice


@pytest.mark.parametrize("profile", [None, "demo"])
def test_the_space_that_shows_every_field_can_be_loaded(profile: str | None, tmp_path: Path) -> None:
    path = tmp_path / "every.yaml"
    path.write_text(blocks(ROOT / "docs" / "spaces.md")[0])
    space = load_space(path, profile=profile)
    assert (space.samples, space.stop_at, len(space.replicate_values())) == (20, 0.93, 3)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_no_heading_and_no_line_of_prose_stands_twice(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE).splitlines()
    lines = [line for line in prose if line.startswith("#") or (len(line) >= 60 and not line.startswith("|"))]
    assert [line for line, count in Counter(lines).items() if count > 1] == []
