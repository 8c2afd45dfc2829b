"""JSON schemas of configs, as pydantic makes them, with descriptions from docstrings and the names of registries."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from sweeper.describe.fields import UNSHOWN, described_fields, names_accepted_by
from sweeper.describe.meanings import meanings_of, summary_of
from trials.config.schedules import read_lr_steps
from trials.config.source_config import HasSource, StartsDense
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS
from trials.methods.greg.ratios import read_skip_layers, read_stage_pr
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES

Schema = dict[str, Any]

PLUGIN: Schema = {"type": "string", "pattern": r"^[^:\s]+:\S+$"}
"""The name of something that is not built in: ``module:Name``."""

_TEXT: Schema = {"type": "string"}

_ALSO: dict[Any, list[Schema]] = {
    read_lr_steps: [_TEXT, {"type": "object"}],
    read_stage_pr: [_TEXT, {"type": "array"}, {"type": "object"}],
    read_skip_layers: [_TEXT, {"type": "array"}],
}
"""By what reads a field's text first, what else than its own type it takes."""


def names_schema(known: Iterable[str], *, plugins: bool = False) -> Schema:
    """Return the schema of one of several names; with ``plugins``, those of plug-ins as well."""
    enum: Schema = {"enum": list(known)}
    return {"anyOf": [enum, PLUGIN]} if plugins else enum


def _takes_plugins(known: Collection[str]) -> bool:
    """Whether names of plug-ins are accepted beside those of a registry."""
    return any(set(known) == set(registry) for registry in (DATASETS, MODELS, SCORES, DISTRIBUTIONS, PATTERNS))


class SchemaGenerator(GenerateJsonSchema):
    """Pydantic's generator, which knows registries, what is read from text, and the meaning of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        known = names_accepted_by(schema["function"]["function"])
        return names_schema(known, plugins=_takes_plugins(known)) if known else super().function_after_schema(schema)

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        reader = schema["function"]["function"]
        if _is_model(schema["schema"]):
            return inner
        if reader in _ALSO:
            return {"anyOf": [inner, *_ALSO[reader]]}
        return {}  # it takes more than its type says

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if isinstance(schema.get("default"), BaseModel):  # its fields have defaults
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        cls: Any = schema["cls"]
        found["description"] = summary_of(cls)
        found.pop("title", None)
        found.pop("required", None)  # profiles, grid and search may give the rest
        meanings = meanings_of(cls)
        for name in set(UNSHOWN) & set(found.get("properties", {})):
            del found["properties"][name]
        for name, value in found.get("properties", {}).items():
            if meanings.get(name):
                value["description"] = meanings[name]
        return found


def _is_model(schema: Any) -> bool:
    """Whether it is the schema of a whole config, within its validators."""
    return bool(schema["type"] in ("model", "model-fields", "definition-ref")) or (
        "schema" in schema and _is_model(schema["schema"])
    )


def config_schemas() -> tuple[dict[str, str], dict[str, Schema]]:
    """Return, by method, the name of the definition of its fields; and all definitions."""
    bases: list[type[BaseModel]] = [TrialConfig, HasSource, StartsDense]
    configs = {method: METHODS[method].Config for method in METHODS}
    found, generated = models_json_schema(
        [(config, "validation") for config in (*bases, *configs.values())], schema_generator=SchemaGenerator
    )
    definitions: dict[str, Schema] = generated["$defs"]
    name_of = {config: _name(found[config, "validation"]) for config in (*bases, *configs.values())}
    _add_what_validators_take(definitions)
    for config, name in name_of.items():
        above = [base for base in bases if issubclass(config, base) and base is not config]
        _refer(definitions, name, [name_of[base] for base in above])
    return {method: name_of[config] for method, config in configs.items()}, definitions


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _add_what_validators_take(definitions: dict[str, Schema]) -> None:
    """Add what validators of whole configs take beside the fields' own types."""
    for definition in definitions.values():
        fields = definition.get("properties", {})
        if "nm" in fields:
            fields["nm"]["anyOf"].append({"type": "string", "pattern": r"^\s*\d+\s*:\s*\d+\s*$"})
        if "stage_pr" in fields:
            fields["lr_ft"] = {
                "description": "GReg's name for finetune.lr_steps.",
                "type": ["string", "array", "object"],
            }
        if "normalise" in fields:
            fields["normalise"]["enum"] = ["dataset", "imagenet", "none", False, True]
        if "method" in fields and "dataset" in fields and "const" not in fields["method"]:
            fields["method"] = {**names_schema(METHODS, plugins=True), "description": fields["method"]["description"]}
            said = "modules and folders whose code names with a colon come from."
            fields.setdefault("plugins", {"type": "array", "items": _TEXT, "description": said})


def _refer(definitions: dict[str, Schema], name: str, bases: Iterable[str]) -> None:
    """Let fields that are described alike in a base's definition refer to it."""
    own = definitions[name]["properties"]
    for base in bases:
        for field, schema in definitions[base]["properties"].items():
            if "$ref" not in schema and own.get(field, schema) == schema:
                own[field] = {"$ref": f"#/$defs/{base}/properties/{field}"}


def value_schemas(method: str, definition: str, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """Return references to the schemas of all of a method's fields, by dotted path."""
    found: dict[str, Schema] = {}
    for one in described_fields(METHODS[method].Config):
        place = definition
        *outer, last = one.path.split(".")
        for part in outer:
            place = _held(definitions, definitions[place]["properties"][part])
        schema = definitions[place]["properties"][last]
        found[one.path] = schema if "$ref" in schema else {"$ref": f"#/$defs/{place}/properties/{last}"}
    return found


def _held(definitions: dict[str, Schema], schema: Schema) -> str:
    """The name of the definition that a field's schema refers to, also where it may be null."""
    reference = str(schema.get("$ref", ""))
    if "/properties/" in reference:
        base, _, field = reference.removeprefix("#/$defs/").partition("/properties/")
        return _held(definitions, definitions[base]["properties"][field])
    if reference:
        return _name(schema)
    return next(_name(one) for one in schema["anyOf"] if "$ref" in one)
