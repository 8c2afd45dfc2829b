"""Check the manifests of deploy/kuberay, field by field, against KubeRay's own definitions (CRDs).

    python -m tests.deploy.check_crd VERSION ray.io_rayjobs.yaml ray.io_rayclusters.yaml [--note]

The two files lie in ``ray-operator/config/crd/bases`` of KubeRay's repository; docs/kubernetes.md has the command that
downloads them. Every value is checked as an API server would check it, and a field that the definition lacks, which a
server drops without a word, is an error. ``--note`` writes what the definitions say of the fields in use to
``kuberay_fields.json``, to which tests/test_deploy.py keeps the manifests. The exit code is 1 if a manifest is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kuberay"
NOTED = Path(__file__).parent / "kuberay_fields.json"
"""``versions`` of KubeRay, and the ``fields`` of which all of them say the same: by kind, paths with their type, or the
list of values that they may have."""


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every document of ``deploy/kuberay``, with the name of its file."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def schema_of(definition: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind that a CRD defines, and the schema of its version ``v1``."""
    (served,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    return definition["spec"]["names"]["kind"], served["schema"]["openAPIV3Schema"]


def strict(schema: Any) -> Any:
    """A schema of Kubernetes as plain JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: strict(part) for key, part in schema.items() if not key.startswith("x-kubernetes") and key != "format"
    }
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    closed = "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields")
    if closed and "additionalProperties" not in schema:
        found["additionalProperties"] = False
    return found


def fields_of(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The field paths of a document with their values; ``[]`` stands for each entry of a list."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield (*path, key), value
            yield from fields_of(value, (*path, key))
    elif isinstance(content, list):
        for value in content:
            yield from fields_of(value, (*path, "[]"))


def said_of(schema: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What a schema says of a field: its type, ``quantity`` for a number with a unit, or the values it may have."""
    found: Any = schema
    for part in path:
        if part == "[]":
            found = found["items"]
        else:
            found = found["properties"][part] if "properties" in found else found["additionalProperties"]
    if found.get("x-kubernetes-int-or-string"):
        return "quantity"
    return found.get("enum") or found["type"]


def wrong(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with a manifest, a line for each place."""
    found = strict(schema)
    found["properties"]["metadata"] = {"type": "object"}  # the API server's own
    errors = Draft202012Validator(found).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path)) or 'the document'}: {error.message}" for error in errors]


def noted(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the definitions say of every field that a manifest uses, by kind."""
    used: dict[str, dict[str, Any]] = {}
    for _, document in manifests():
        if (kind := document["kind"]) in schemas:
            paths = {path for path, _ in fields_of(document) if path[0] == "spec"}
            used.setdefault(kind, {}).update({".".join(path): said_of(schemas[kind], path) for path in paths})
    return {kind: dict(sorted(fields.items())) for kind, fields in sorted(used.items())}


def note(version: str, fields: dict[str, dict[str, Any]]) -> None:
    """Write what a version says of the fields in use, beside the other versions that say the same."""
    before = json.loads(NOTED.read_text()) if NOTED.exists() else {}
    others = before["versions"] if before.get("fields") == fields else []
    NOTED.write_text(json.dumps({"versions": sorted({*others, version}), "fields": fields}, indent=1) + "\n")


def main(words: list[str]) -> int:
    """Check all manifests; return the exit code."""
    p = argparse.ArgumentParser(prog="python -m tests.deploy.check_crd", description=__doc__)
    p.add_argument("version")
    p.add_argument("definitions", nargs="+", type=Path)
    p.add_argument("--note", action="store_true")
    given = p.parse_args(words)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schemas = dict(schema_of(yaml.load(path.read_text(), loader)) for path in given.definitions)
    failed = False
    for name, document in manifests():
        if document["kind"] not in schemas:
            continue
        errors = wrong(document, schemas[document["kind"]])
        failed = failed or bool(errors)
        count = len({path for path, _ in fields_of(document)})
        print(f"{name}: {document['kind']} of KubeRay {given.version}: {count} fields, {len(errors)} wrong")
        for line in errors:
            print(f"  {line}")
    if given.note and not failed:
        note(given.version, noted(schemas))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
