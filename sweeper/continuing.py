"""May a space continue the sweep in a folder: descriptions are compared first, then what its trials really were."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeper.folder.confirmations import only_confirms
from sweeper.folder.forgiving import followed_failures
from sweeper.folder.packed_records import PackedRecords, RecordContents
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.search.derived_configs import Compared, compare_committed
from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document, without_absent_code
from sweeper.space.space import Space
from trials.called import trial_command
from trials.dotted_paths import leaves
from trials.errors import NotAdmitted, UserError, one_line
from trials.frozen import SCHEMA
from trials.plugins.importing import admit_listed, sent
from trials.plugins.source import module_of
from trials.storage.data_used import DataUsed

_VERSIONS = ("torch", "torchvision", "ray", "optuna", "pandas", "pyarrow", "numpy")


@dataclass(frozen=True)
class Continued:
    """What is to be said of a sweep that a space may continue.

    Attributes:
        lines: what its user should know.
        revised: why nothing more may be run in it, as the message of a refusal; None if it may.
    """

    lines: tuple[str, ...] = ()
    revised: str | None = None

    def require_nothing_to_run(self) -> None:
        """Called where something would run.

        Raises:
            UserError: its trials have other revisions than this version computes.
        """
        if self.revised is not None:
            raise UserError(self.revised)


def resumed_space(folder: SweepFolder, plugins: Sequence[str] = (), **given: int | float | None) -> Space:
    """Return the space of a sweep's last change, with the values of ``given`` that are not None.

    ``plugins``: code that the sweep may use, as the user lists it. What it lists itself is not imported otherwise.

    Raises:
        UserError: there is no such sweep, or its sweep.yaml cannot be read by this version.
    """
    document = folder.space_document()
    _require_schema(folder)
    if document is None:
        raise UserError(
            f"--resume is {folder.path.name!r}, but {folder.path.parent} has no such sweep with a sweep.yaml: "
            "--list shows the sweeps of a storage; --space begins one"
        )
    document = _with_plugins(document, plugins)
    _begun(folder, document)  # without the changes, so that a fault is said of the right one
    return from_document({**document, **{name: value for name, value in given.items() if value is not None}})


def _with_plugins(document: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Admit the plug-ins that the user gave, in place of those of the same modules in the sweep's space."""
    own = [listed for listed in document.get("plugins") or () if isinstance(listed, str)]
    found = admit_listed({}, Path.cwd(), given).get("plugins", [])
    modules = {module_of(listed) for listed in found}
    kept = [listed for listed in own if module_of(listed) not in modules]
    return {**document, "plugins": [*kept, *found]} if kept or found else document


def _begun(folder: SweepFolder, document: Mapping[str, Any]) -> Space:
    try:
        return from_document(document)
    except NotAdmitted:
        raise
    except UserError as error:
        raise UserError(
            f"{folder.path / 'sweep.yaml'} has a space of another version, or was changed by hand ({error}): "
            "restore it, or give another --name"
        ) from None


def refuse_contradictions(
    folder: SweepFolder, space: Space, *, retry_failed: bool = False, resumed: bool = False
) -> Continued:
    """Refuse a space that neither resumes nor extends the sweep in the folder.

    Args:
        retry_failed: whether failed trials are to run again.
        resumed: whether the space is the sweep's own, of ``--resume``.

    Raises:
        UserError: the spaces differ in what cannot change, a trial is not what the space says, or trials of other
            revisions would be mixed (the message names it); or sweep.yaml cannot be read, or is of another schema.
    """
    document, name = folder.space_document(), folder.path.name
    _require_schema(folder)
    records = PackedRecords(folder)
    single = next((record.id for record in records.values() if not record.samples), None) if document is None else None
    if single is not None:
        raise UserError(f"{name} holds {single}, which no sweep has asked for ({trial_command()}): give another --name")
    if document is not None:
        differences = contradictions(_begun(folder, without_absent_code(document)), space, RecordContents(records))
        if differences:
            as_begun = "" if resumed else f", continue it as it was begun (--resume {name})"
            raise UserError(
                f"{name} was begun as another sweep: {'; '.join(differences)}; restore what it had{as_begun}, "
                "or give another --name"
            )
    found = compare_committed(space, records, _written_first(folder))
    if found.difference is not None:
        whose = f" ({folder.path / 'sweep.yaml'} may be another sweep's)" if resumed else ""
        raise UserError(
            f"{name} would be continued as another sweep{whose}: {found.difference}, or give another --name"
        )
    continued = _continued(name, found)
    if continued.revised is not None and not _nothing_to_run(space, folder, records, retry_failed=retry_failed):
        continued.require_nothing_to_run()
    return continued


def _require_schema(folder: SweepFolder) -> None:
    """Refuse a sweep that was written with another schema, that is, with other folders."""
    documents = folder.documents()
    schema = documents[-1].get("schema", 1) if documents else SCHEMA
    if schema != SCHEMA:
        raise UserError(
            f"{folder.path.name} was written with schema {schema} (commit {documents[-1].get('commit')}), but this "
            f"code has schema {SCHEMA}: resume with that version, or give another --name"
        )


def _written_first(folder: SweepFolder) -> frozenset[str] | None:
    """Paths that the sweep's first template and its cases write; None if they are not known."""
    documents = folder.documents()
    try:
        first = documents[0]["space"]
        templates = [first["trial"], *(case["trial"] for case in (first.get("cases") or {}).values())]
        return frozenset(path for written in templates for path, _ in leaves(written))
    except (IndexError, KeyError, TypeError, AttributeError):
        return None


def _continued(name: str, found: Compared) -> Continued:
    lines = []
    if found.unhashed:
        files = one_line(", ".join(found.unhashed))
        lines.append(f"not known whether these have changed since {name} began: {files}")
    if found.revised is None:
        return Continued(tuple(lines))
    lines.append(f"{found.revised}: {name} is shown, but cannot be extended")
    return Continued(
        tuple(lines),
        f"{found.revised}: results of both would be mixed in {name}; --show {name} shows it, "
        "another --name begins it anew",
    )


def _nothing_to_run(space: Space, folder: SweepFolder, records: Mapping[str, Record], *, retry_failed: bool) -> bool:
    """Whether every trial is over and no cell asks for more samples."""
    from sweeper.search.cells.cell_search import search_of
    from sweeper.search.committed import given_up, samples_with_outcomes  # imports pandas: rarely needed
    from sweeper.search.warm_start import NO_WARM_START

    settled = followed_failures(records.values()) if space.pbt else frozenset()
    for record in records.values():
        if not record.samples:
            continue
        held = only_confirms(record.samples) and not retry_failed  # their search says whether they still count
        over = record.finished or held or record.id in settled
        if not over and (retry_failed or not given_up(space, record.state)):
            return False
    searches = {cell.key: search_of(space, cell, NO_WARM_START) for cell in space.cells()}
    for sample, record, outcome in samples_with_outcomes(space, folder, records):
        searches[sample.cell].replay(sample, outcome, record)
    return not any(search.wants for search in searches.values())


def record_change(
    folder: SweepFolder,
    space: Space,
    console: Console,
    commit: str | None,
    data: Sequence[DataUsed] = (),
    command: str = "",
) -> None:
    """Add space, data, library versions and commit to sweep.yaml if any has changed; print what changed of the code.

    ``command``: what has begun or changed the sweep, for readers.
    """
    documents = folder.documents()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "space": space.document(),
        "data": [used.document() for used in data],
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "commit": commit,
        **({"plugins": {each["listed"]: each["digest"] for each in sent(space.code)}} if space.code else {}),
    }
    if documents and {key: documents[-1].get(key) for key in document} == document:
        return
    if documents and documents[-1].get("commit") != commit:
        console.print(f"resumes with other code: commit {_short(documents[-1].get('commit'))} -> {_short(commit)}")
    before = documents[-1].get("versions", {}) if documents else {}
    changed = [f"{n} {before[n]} -> {v}" for n, v in document["versions"].items() if before.get(n, v) != v]
    if changed:
        console.print(f"resumes with other versions: {', '.join(changed)}", markup=False)
    if documents and (others := _changed_plugins(documents[-1].get("plugins"), document.get("plugins", {}))):
        console.print(f"resumes with other plug-ins: {', '.join(others)}", markup=False)
    written = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    folder.append({**written, **({"command": command} if command else {}), **document})


def _changed_plugins(before: object, now: Mapping[str, str]) -> list[str]:
    """One text for each plug-in, by module, whose source is another one than before."""
    then = {module_of(str(listed)): digest for listed, digest in before.items()} if isinstance(before, dict) else {}
    digests = {module_of(listed): digest for listed, digest in now.items()}
    return [f"{m} {then[m]} -> {digest}" for m, digest in digests.items() if m in then and then[m] != digest]


def _short(commit: object) -> str:
    """A commit as it is printed: ten digits, and whether files differ from it; ``unknown`` outside a git checkout."""
    if not isinstance(commit, str) or not commit:
        return "unknown"
    digits, dash, dirty = commit.partition("-")
    return f"{digits[:10]}{dash}{dirty}"
