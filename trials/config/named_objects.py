"""Which fields of a config name objects of registries, and what those from outside this package say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from pydantic import AfterValidator, BaseModel

from trials.config.recipes import OneOf
from trials.registry import Registry, registry_of, revision_of


def outside_revisions(config: Any) -> dict[str, int]:
    """By the field that names it, the revision of each object from outside this package, where it is not 1."""
    outside = ((path, registry, name) for path, registry, name in _named(config) if not registry.built_in(name))
    found = {path: revision_of(registry[name]) for path, registry, name in outside}
    return {path: number for path, number in found.items() if number != 1}


def _named(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Registry[Any], str]]:
    """Yield the dotted path, the registry and the name of every field of a config that names an object."""
    methods = registry_of("methods")
    if isinstance(method := getattr(config, "method", None), str) and methods is not None and not prefix:
        yield "method", methods, method
    for field, registry in _registries(type(config)):
        name = getattr(config, field)
        if name is not None:
            yield f"{prefix}{field}", registry, name
    for field in type(config).model_fields:
        value = getattr(config, field)
        if isinstance(value, BaseModel):
            yield from _named(value, f"{prefix}{field}.")


def code_of(config: Any) -> tuple[str, ...]:
    """The plug-ins that a config lists, and the packages of installed distributions whose names it uses."""
    packages = [registry.package_of(name) for _, registry, name in _named(config)]
    return tuple(dict.fromkeys([*config.plugins, *filter(None, packages)]))


def modules_of(config: Any) -> list[str]:
    """The modules and packages from outside this project whose objects a config names."""
    packages = [registry.package_of(name) for _, registry, name in _named(config)]
    return [*(name.partition(":")[0] for _, name in names_with_colon(config)), *filter(None, packages)]


def names_with_colon(config: BaseModel) -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the value of every field that names an object as ``module:attribute``."""
    return ((path, name) for path, registry, name in _named(config) if registry.is_of_plug_in(name))


@lru_cache(maxsize=256)
def _registries(config: type[BaseModel]) -> tuple[tuple[str, Registry[Any]], ...]:
    """The fields of a config that hold names of a registry."""
    found = []
    for name, field in config.model_fields.items():
        for rule in (*field.metadata, *_rules(field.annotation)):
            kept_in = rule.func.registry if isinstance(rule, AfterValidator) and isinstance(rule.func, OneOf) else None
            if isinstance(kept_in, Registry):
                found.append((name, kept_in))
    return tuple(found)


def _rules(annotation: Any) -> Iterator[Any]:
    """Yield the rules within a type such as ``Annotated[str, one_of(MODELS)] | None``."""
    for part in get_args(annotation):
        yield part
        yield from _rules(part)
