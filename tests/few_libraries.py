"""Lets a process, and those that it starts, import some libraries only, and open no connection to other machines.

``few_libraries(folder)`` writes a ``sitecustomize.py``; a process that has its folder in ``PYTHONPATH`` runs it first.
Other libraries are not found, as if they were not installed.
"""

from __future__ import annotations

import os
from pathlib import Path

NEEDED = ("torch", "numpy", "pyarrow", "PIL", "filelock", "sklearn", "pydantic")
"""What the GPU check says that it needs, by the names of modules."""

THEIRS = (
    "torchgen", "functorch", "triton", "nvidia", "cuda", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
    "fsspec", "typing_extensions", "pydantic_core", "annotated_types", "typing_inspection", "scipy", "joblib",
    "threadpoolctl", "_distutils_hack", "setuptools", "pkg_resources",
)  # fmt: skip
"""What these depend on themselves."""

SCRIPT = """
import importlib.machinery, socket, sys
ALLOWED = {allowed!r}
class Few:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        where = str(spec and (spec.origin or spec.submodule_search_locations))
        return spec if "site-packages" not in where or name.partition(".")[0] in ALLOWED else None
sys.meta_path[:] = [Few if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
def refuse(self, address):
    if self.family != getattr(socket, "AF_UNIX", None):
        raise OSError(f"a connection to {{address}} is not allowed here")
socket.socket.connect = refuse
"""


def few_libraries(folder: Path) -> dict[str, str]:
    """Return the environment of a process that has nothing but these libraries and no network."""
    (folder / "sitecustomize.py").write_text(SCRIPT.format(allowed=(*NEEDED, *THEIRS)))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
