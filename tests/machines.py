"""A Ray cluster of several simulated machines, which other drivers join only by its address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def several_machines(head: Mapping[str, Any]) -> Any:
    """A ``ray.cluster_utils.Cluster`` with its head.

    Ray writes the cluster's address into a file as the default of this machine. The file is restored, or every sweep
    that starts here meanwhile without ``--address`` would join this cluster and end with it.
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
