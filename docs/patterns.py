"""Write README.md's table of the patterns that each method supports: ``python docs/patterns.py``."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from trials.methods.registry import METHODS
from trials.methods.supported import patterns_of
from trials.sparsity import PATTERNS

README = Path(__file__).resolve().parent.parent / "README.md"
PLACE = re.compile(r"(<!-- patterns: .*? -->\n).*?(<!-- end of patterns -->)", re.DOTALL)


def table() -> str:
    """Return the table as Markdown: a row for the methods that prune by the same patterns."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, method in METHODS.items():
        if patterns := patterns_of(method):
            alike[patterns].append(f"`{name}`")
    lines = ["| prunes by | " + " | ".join(PATTERNS) + " |", "|---|" + ":-:|" * len(PATTERNS)]
    for patterns, names in alike.items():
        lines.append(f"| {', '.join(names)} | " + " | ".join("✓" if p in patterns else "" for p in PATTERNS) + " |")
    return "\n".join([*lines, "", left_whole()])


def left_whole() -> str:
    """Return the sentence that says which layers the patterns leave dense."""
    linear = [f"`{name}`" for name, pattern in PATTERNS.items() if pattern.linear]
    some = [f"`{name}`" for name, pattern in PATTERNS.items() if pattern.multiple > 1]
    return (
        f"Only {' and '.join(linear)} prune linear layers. {', '.join(some)} leaves layers whole whose input channels\n"
        "(of a group) are no multiple of M, such as the first convolution and depthwise ones. `density` is the share\n"
        "of the layers that are pruned; `python -m trials inspect TRIAL` and the table `layers` list them all."
    )


def written(page: str) -> str:
    """Return the page with the table in its place."""
    return PLACE.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", page)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
