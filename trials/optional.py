"""Libraries that only some features need. Each belongs to an extra of the distribution (docs/install.md)."""

from __future__ import annotations

import importlib
from types import ModuleType

from trials.errors import UserError

DISTRIBUTION = "sparsity-sweeper"


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: its name in Python, e.g. ``onnxruntime``.
        extra: the extra that installs it, e.g. ``export``.
        what: the option or function that needs it, e.g. ``--form onnx``.

    Returns:
        The module.

    Raises:
        UserError: it, or a library that it needs itself, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0].replace("_", "-")
        raise UserError(
            f"{what} needs {missing}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"
        ) from None
