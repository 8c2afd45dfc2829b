"""Several machines, as far as Ray knows, that nobody joins who does not name their address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def several_machines(head: Mapping[str, Any]) -> Any:
    """A ``ray.cluster_utils.Cluster`` with its head.

    Ray notes its address as the one that this machine belongs to; that note is put back as it was, or every sweep that
    somebody begins here meanwhile without ``--address`` would join it, and end with it.
    """
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    note = Path(get_ray_address_file(None))
    before = note.read_text() if note.exists() else None
    cluster = Cluster(initialize_head=True, head_node_args=dict(head))
    note.unlink(missing_ok=True)
    if before is not None:
        note.write_text(before)
    return cluster
