"""What figures of a report are asked in tests: does Vega compile them, and how large is a picture."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sweeper.report.figure import Figure
from sweeper.report.packed import rows_for_vega


def compiled(figure: Figure, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The figure in Vega's grammar; Vega-Lite must have nothing to say about it."""
    vl_convert = pytest.importorskip("vl_convert")
    capfd.readouterr()
    spec = {**figure.spec, "datasets": {"rows": rows_for_vega(figure.rows)}}
    found: dict[str, Any] = vl_convert.vegalite_to_vega(spec, "6.4", show_warnings=True)
    said = capfd.readouterr()
    assert said.out + said.err == ""
    return found


def marks(found: Any, kind: str) -> Iterator[dict[str, Any]]:
    """All marks of a kind, such as ``symbol``, in Vega's scene graph."""
    for node in found if isinstance(found, list) else found.get("items", []):
        if node.get("marktype") == kind:
            yield from node.get("items", [])
        else:
            yield from marks(node, kind)


def scene(figure: Figure) -> dict[str, Any]:
    """What Vega draws: its scene graph."""
    vl_convert = pytest.importorskip("vl_convert")
    spec = {**figure.spec, "width": 500, "height": 300, "datasets": {"rows": rows_for_vega(figure.rows)}}
    found: dict[str, Any] = vl_convert.vegalite_to_scenegraph(spec, "6.4")["scenegraph"]
    return found


def points_in_scene(found: Any) -> list[dict[str, Any]]:
    """The points that stand for rows, without the legend's."""
    return [item for item in marks(found, "symbol") if item.get("ariaRoleDescription") == "point"]


def texts_in(found: Any) -> list[str]:
    """All texts that are drawn."""
    return [str(item["text"]) for item in marks(found, "text") if "text" in item]


def pixels(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def points_of_pdf(pdf: bytes) -> tuple[float, float]:
    box = re.search(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", pdf)
    assert box is not None
    return float(box[1]), float(box[2])


def size_of_svg(svg: bytes) -> tuple[str, str]:
    found = re.search(rb'<svg[^>]*? width="([^"]+)" height="([^"]+)"', svg)
    assert found is not None
    return found[1].decode(), found[2].decode()
