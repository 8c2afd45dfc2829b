"""Loads a space by name or from a YAML file, and applies a profile and ``--set`` overrides.

Both change the file's content before it is resolved. An entry of ``grid`` or ``search`` counts as one value: it is
replaced as a whole, and null removes it. A grid entry keeps its condition if only its values are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sweeper.space.checks import check_sections
from sweeper.space.space import Space
from sweeper.space.space_files import find_space, read_space, take_profiles
from sweeper.space.values import mapping, plain
from trials.dotted_paths import get_at, merge, override
from trials.errors import UserError, shown, unknown_name
from trials.frozen import validate
from trials.plugins.importing import admit_listed, is_admitted, listed_in
from trials.system.user_path import user_path
from trials.yaml_text import as_yaml

_Space = TypeVar("_Space", bound=Space)


def load_space(
    given: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    samples: int | None = None,
    max_concurrent: int | None = None,
    max_hours: float | None = None,
    plugins: Sequence[str] = (),
) -> Space:
    """Load a space by its name in ``sweeper/spaces/``, from a YAML file or from a mapping, and resolve it.

    Cells are not built here; :func:`sweeper.space.checks.check_space` does that.

    Args:
        given: a name or a file, or what a file would hold. A mapping may have the key ``name``.
        name: of a mapping without one.
        profile: name of a profile of the space, merged over it. Mappings merge; other values and the entries of
            ``grid`` and ``search`` are replaced; null removes an entry of ``grid`` or ``search``.
        overrides: settings ``a.b=c``, applied after the profile. All that follows ``grid.`` or ``search.`` is one path.
        samples: replaces the space's value, as do ``max_concurrent`` and ``max_hours``.
        plugins: users' code beside what the space lists (:func:`admit_plugins`).

    Raises:
        UserError: there is no such space or profile, or its content is invalid.
    """
    name, content, folder = _read(given, name)
    profiles = take_profiles(content)
    if profile is not None:
        if not profiles:
            raise UserError(f"profile is {profile!r}, but {name} has no profiles: leave it out")
        if profile not in profiles:
            raise UserError(unknown_name("profile", profile, profiles))
        content = merge_profile(content, mapping(profiles[profile], f"profiles.{profile}"))
    for setting in overrides:
        content = mapping(apply_setting(content, setting), "a space")
    for field, value in (("samples", samples), ("max_concurrent", max_concurrent), ("max_hours", max_hours)):
        if value is not None:
            content[field] = value
    if "name" in content:
        raise UserError(f"name is {shown(content['name'])}, but a space is named after its file: remove it")
    return from_document({"name": name, **admit_plugins(content, folder, plugins)})


def admit_plugins(content: Mapping[str, Any], folder: Path, also: Sequence[str] = ()) -> dict[str, Any]:
    """Admit the plug-ins of a space that the user gave, and return its content with them resolved.

    Those that its template lists count as the space's.

    Args:
        folder: where relative paths start.
        also: further plug-ins; relative paths start at the working folder.

    Raises:
        UserError: one of them is not here.
    """
    trial, cases = content.get("trial"), content.get("cases")
    for name, case in cases.items() if isinstance(cases, dict) else ():
        if isinstance(case, dict) and isinstance(case.get("trial"), dict) and "plugins" in case["trial"]:
            raise UserError(f"cases.{name}.trial has plugins, which are those of all trials: list them at the top")
    if isinstance(trial, dict) and "plugins" in trial:
        listed = [entry for part in (content, trial) for entry in listed_in(part)]
        content = {
            **content,
            "plugins": listed,
            "trial": {name: value for name, value in trial.items() if name != "plugins"},
        }
    return admit_listed(content, folder, also)


def _read(given: str | Path | Mapping[str, Any], name: str | None) -> tuple[str, dict[str, Any], Path]:
    """The name and the content of a space, and the folder in which its plug-ins are looked for."""
    if not isinstance(given, Mapping):
        path = user_path(given, "--space") if isinstance(given, Path) else find_space(given)
        return path.stem, read_space(path), path.parent
    content = mapping(plain(as_yaml(given), ""), "a space")
    said = content.pop("name", None)
    if not isinstance(said := name if said is None else said, str):
        raise UserError(f"name is {shown(said)}, but a space that is a mapping needs one as text: give name='NAME'")
    return said, content, Path.cwd()


def from_document(document: object) -> Space:
    """Build a space from the form that :meth:`Space.document` returns.

    Raises:
        UserError: its content is invalid, or its sections contradict each other.
    """
    return space_of(document, Space)


def space_of(document: object, kind: type[_Space]) -> _Space:
    """Like :func:`from_document`, as a subclass of :class:`Space`.

    Raises:
        UserError: its content is invalid, or its sections contradict each other.
    """
    space: _Space = validate(kind, mapping(plain(document, ""), "a space"), "")
    check_sections(space)
    return space


def without_absent_code(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored space without callbacks, and without plug-ins that this process has not admitted.

    What it sweeps may need neither; names that do are refused one by one.
    """
    listed = [entry for entry in document.get("plugins") or () if is_admitted(str(entry))]
    rest = {key: value for key, value in document.items() if key not in ("callbacks", "plugins")}
    return {**rest, "plugins": listed} if listed else rest


SECTIONS = ("grid", "search")


def merge_profile(content: dict[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with a profile merged over it: mappings merge, everything else is replaced."""
    merged = merge(content, {key: value for key, value in profile.items() if key not in SECTIONS})
    for section in SECTIONS:
        if section in profile:
            merged[section] = _replace(merged.get(section), profile[section], section)
    return merged


def apply_setting(content: dict[str, Any], setting: str) -> Any:
    """Return ``content`` with one setting ``a.b=c`` applied. What follows ``grid.`` or ``search.`` is one key."""
    section, dot, rest = setting.partition("=")[0].partition(".")
    if section not in SECTIONS or not dot:
        return override(content, [setting])
    value = get_at(override({}, [setting]), f"{section}.{rest}")
    return {**content, section: _replace(content.get(section), {rest: value}, section)}


def _replace(old: object, new: object, section: str) -> Any:
    """Return a grid or search with the entries of ``new`` replacing or added to those of ``old``; null removes one."""
    old = {} if old is None else old
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    for path, value in new.items():
        if value is None and path not in old:
            raise UserError(f"{section}.{path} is null, which removes it, but there is no such entry: leave it out")
    entries = {path: value for path, value in {**old, **new}.items() if path not in new or value is not None}
    for path, before in old.items() if section == "grid" else ():
        if isinstance(before, dict) and "when" in before and isinstance(new.get(path), (list, str)):
            entries[path] = {**before, "values": new[path]}
    return entries
