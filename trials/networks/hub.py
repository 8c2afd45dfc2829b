"""Files of weights in torch's hub cache ($TORCH_HOME/hub/checkpoints): downloaded once, compared with their names."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

import torch

from trials.errors import UserError
from trials.networks.content import digest_of_file
from trials.storage.read_once import stamp_of


def hub_path(url: str) -> Path:
    """Path at which torch.hub caches the file of ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


_HASH = re.compile(r"-([0-9a-f]{8,64})$")


def _hash_in(name: str) -> str:
    """The first hex digits of a file's SHA-256, with which its name ends; empty if it ends otherwise."""
    found = _HASH.search(Path(name).stem)
    return found[1] if found else ""


def fetched_to_hub(url: str, what: str, way_out: str) -> Path:
    """Path at which torch.hub caches the file of ``url``; downloaded if missing.

    The content is compared with the hash at the end of the file's name, whether it was there or is downloaded.

    Raises:
        UserError: the file cannot be downloaded or written, and then the message ends with ``way_out``; or its content
            has another hash. The message begins with ``what``.
    """
    path = hub_path(url)
    if path.is_file():
        require_named_content(path, what)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_in(path.name) or None, progress=False)
    except (OSError, RuntimeError) as error:  # no network (URLError is an OSError); another hash (RuntimeError)
        raise UserError(f"{what} are not at {path}, and {url} cannot be downloaded ({error}): {way_out}") from None
    return path


def require_named_content(path: Path, what: str) -> None:
    """Check that a file's content has the hash at the end of its name, if there is one.

    Raises:
        UserError: it has another one, or cannot be read; the message begins with ``what``.
    """
    expected = _hash_in(path.name)
    if not expected:
        return
    found = _digest_of(path, f"{what} are at {path}", stamp_of(path))
    if not found.startswith(expected[: len(found)]):
        raise UserError(
            f"{what} are at {path}, but the SHA-256 of that file is {found[: len(expected)]}..., and must begin with "
            f"{expected}, as its name says: delete it, and it is downloaded again"
        )


@lru_cache(maxsize=64)
def _digest_of(path: Path, what: str, stamp: tuple[int, ...]) -> str:
    """Hash of a file; it is read once as long as its stamp stays, since every trial asks for it."""
    return digest_of_file(path, what)
