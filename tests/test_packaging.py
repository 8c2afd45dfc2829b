"""rsync copies all of the packages to a cluster; CITATION.cff. The wheel: tests/test_installed.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trials.version import __version__

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("file", ["cluster.yaml", "cluster-aws.yaml"])
def test_rsync_brings_every_file_of_the_packages(file: str) -> None:
    """An exclude pattern without a leading slash matches folders at any depth."""
    patterns = yaml.safe_load((REPOSITORY / file).read_text())["rsync_exclude"]
    paths = [path for package in ("sweeper", "trials") for path in (REPOSITORY / package).rglob("*")]
    parts = {part for path in paths for part in path.relative_to(REPOSITORY).parts} - {"__pycache__"}
    assert {"spaces", "reference"} <= parts
    assert not parts & set(patterns)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
