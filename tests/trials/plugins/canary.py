"""A module that tells when it is imported, and names by which contents could try to have it imported."""

from __future__ import annotations

from hypothesis import strategies as st

CANARY = """
import pathlib
pathlib.Path(__file__).with_suffix('.ran').touch()


def sing(*a, **k):
    raise SystemExit
"""

NAMES = st.one_of(
    st.sampled_from(
        ["canary:sing", "canary", "canary.sing", "canary:", ":canary", "timm:canary", "hf:canary", "torchvision:canary"]
    ),
    st.from_regex(r"(canary|os|mynets\.x)(:|\.|/)[a-z]{0,8}", fullmatch=True),
    st.lists(st.sampled_from(["canary", "./canary.py", "os"]), max_size=2),
)
"""Values of fields: names of the module and of others, well-formed or not."""
