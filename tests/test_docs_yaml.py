"""The YAML of the documentation is YAML, and the space that docs/spaces.md begins with is one."""

from __future__ import annotations

import re
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
