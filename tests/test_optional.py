"""Libraries of extras: what needs one says what to install, and nothing else imports it.

That the rest works without them: tests/test_installed.py.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from trials.errors import UserError
from trials.networks.export import export
from trials.optional import require

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeper", "trials")
OPTIONAL = (
    *("onnx", "onnxruntime", "onnxscript", "optuna_dashboard", "matplotlib", "timm", "datasets"),
    *("huggingface_hub", "safetensors"),
    *("boto3", "comet_ml", "mlflow", "tensorboardX", "vl_convert", "wandb"),
)
"""The modules of the extras."""


def test_it_returns_the_module() -> None:
    assert require("json", "export", "--form onnx") is sys.modules["json"]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError) as said:
        require("optuna_dashboard", "dashboard", "--dashboard")
    assert str(said.value) == (
        "--dashboard needs optuna-dashboard, which is not installed: pip install 'sparsity-sweeper[dashboard]'"
    )


def test_so_is_what_the_library_itself_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import not_installed.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^x needs not-installed, which is not installed: "):
        require("half_installed", "export", "x")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_an_export_without_its_libraries_is_refused_before_the_trial_is_read(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"^--form onnx needs {missing}, .*'sparsity-sweeper\[export\]'$"):
        export(tmp_path / "no trial", tmp_path / "net.onnx", "onnx")


def test_every_extra_that_a_message_names_exists() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python >= 3.11
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path.read_text() for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")]
    named = {extra for text in sources for extra in re.findall(r'require\((?:name|"\w+"), "(\w+)", ', text)}
    assert named >= {"dashboard", "export", "plots"}
    assert named <= extras.keys()


def test_no_module_imports_a_library_of_an_extra_at_its_top() -> None:
    found = [
        f"{path}: {name}"
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        for node in ast.parse(path.read_text()).body
        for inner in ([] if isinstance(node, ast.FunctionDef | ast.ClassDef) else ast.walk(node))
        for name in (
            [alias.name for alias in inner.names]
            if isinstance(inner, ast.Import)
            else [inner.module or ""]
            if isinstance(inner, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] in OPTIONAL
    ]
    assert found == []
