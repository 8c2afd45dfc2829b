"""The report's page: one HTML file that holds its data, its styles and Vega, and asks for nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sweeper.report.figure import Figure
from sweeper.report.figures import REPORT_FIGURES, draw_figure
from sweeper.report.gathered import Gathered
from sweeper.report.packed import packed
from sweeper.report.report_tables import report_tables
from sweeper.report.sections import asked, commands, problems, state
from sweeper.report.theme import vega_config
from trials.errors import UserError
from trials.version import __version__

_HERE = Path(__file__).parent
_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-embed.min.js", "templates/report.js")
_SECTIONS = {"state": state, "asked": asked, "problems": problems, "commands": commands}


@dataclass(frozen=True)
class LiveSource:
    """Where a served page asks for newer parts, and how often."""

    url: str
    every_s: float


def report_html(gathered: Gathered, *, live: LiveSource | None = None) -> str:
    """Return the whole page.

    Args:
        gathered: the sweep.
        live: where the page asks for newer parts; by default it stays as it is, and asks for nothing.
    """
    now = parts(gathered)
    if live is not None:
        now["live"] = {"url": live.url, "every_s": live.every_s}
    scripts = [_file(name) for name in _SCRIPTS]
    figures = [
        {"name": name, "title": _named(name), "drawn": name in now["figures"], "text": "", "notes": ()}
        | {key: value for key, value in now["figures"].get(name, {}).items() if key in ("title", "text", "notes")}
        for name in REPORT_FIGURES
    ]
    text: str = (
        _environment()
        .get_template("report.html")
        .render(
            name=now["name"],
            version=__version__,
            policy=_policy(scripts, live),
            style=Markup(_file("templates/report.css")),
            scripts=[Markup(script) for script in scripts],
            sections={name: Markup(html) for name, html in now["sections"].items()},
            figures=figures,
            tables=[
                {"name": name, **{key: table[key] for key in ("title", "about")}}
                for name, table in now["tables"].items()
            ],
            parts=Markup(_json_in_html(now)),
        )
    )
    return text.encode("utf-8", "replace").decode()  # a name may hold half of a pair of surrogates


def parts(gathered: Gathered) -> dict[str, Any]:
    """Return what the page shows as plain values that JSON can hold: sections as HTML, figures, tables, themes.

    ``digests`` has one text per figure, which changes if the figure does.
    """
    figures, absent = {}, []
    for name in REPORT_FIGURES:
        try:
            figures[name] = _drawn(draw_figure(name, gathered))
        except UserError as error:
            absent.append((_named(name), " ".join(str(error).split())))
        except Exception as error:  # noqa: BLE001  one figure that fails takes nothing else from the reader
            said = " ".join(f"{type(error).__name__}: {error}".split())
            absent.append((_named(name), f"a fault of this program ({said}); the other figures are not affected"))
    macros: Any = _environment().get_template("sections.html").module
    sections = {name: str(getattr(macros, name)(view(gathered))).strip() for name, view in _SECTIONS.items()}
    sections["absent"] = str(macros.absent({"absent": absent})).strip()
    tables = {
        table.name: {
            "title": table.title, "about": table.about, "packed": packed(table.rows, exact=True),
            "long": [name for name in table.long if name in table.rows],
        }
        for table in report_tables(gathered)
    }  # fmt: skip
    return {
        "name": gathered.sweep.path.name,
        "sections": sections,
        "figures": figures,
        "digests": {name: _digest(figure) for name, figure in figures.items()},
        "tables": tables,
        "themes": {"light": vega_config(), "dark": vega_config(dark=True)},
        "live": None,
    }


def _named(figure: str) -> str:
    """A heading for a figure that is not drawn."""
    return figure.replace("_", " ").capitalize()


def _drawn(figure: Figure) -> dict[str, Any]:
    drawn = {
        "title": figure.title, "text": figure.text, "notes": list(figure.notes), "spec": figure.spec,
        "canvas": figure.canvas, "rows": packed(figure.rows, figure.digits),
    }  # fmt: skip
    json.dumps(drawn, allow_nan=False)  # what JSON cannot hold is a fault of this figure, not of the page
    return drawn


def _digest(figure: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(figure, sort_keys=True).encode()).hexdigest()[:16]


def _policy(scripts: list[str], live: LiveSource | None) -> str:
    """The page's content security policy: its own scripts by their digests, and no request but for newer parts."""
    own = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    connect = "'none'" if live is None else "'self'"
    return (
        f"default-src 'none'; script-src {own}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _json_in_html(value: object) -> str:
    """JSON that ends no script element and begins no comment, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
