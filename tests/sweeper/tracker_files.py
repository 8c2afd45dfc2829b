"""What trackers have on disk: rows of a trial by their number, read back from their own files."""

from __future__ import annotations

import json
import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Logged = dict[str, list[tuple[int, dict[str, float]]]]
"""By trial, what was logged in its order: the step and the figures."""


def of_tensorboard(folder: Path) -> Logged:
    """Scalars of the event files below a folder that has a folder for each trial."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: Logged = {}
    for file in sorted(folder.glob("*/events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        content, rows = file.read_bytes(), found.setdefault(file.parent.name, [])
        while content:  # length, its checksum, event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            figures = {value.tag.removeprefix("ray/tune/"): value.simple_value for value in event.summary.value}
            if event.session_log.status == SessionLog.START:  # as TensorBoard: it replaces what was there
                rows[:] = [row for row in rows if row[0] < event.step]
            elif event.step:
                rows.append((event.step, figures))
    return found


def of_mlflow(uri: str, experiment: str) -> tuple[Logged, dict[str, Any]]:
    """Metrics of an experiment's runs, and the runs, by trial, without those of points; two runs of one trial fail."""
    import mlflow

    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # as the callback does where it writes files
    client = mlflow.MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    logged: Logged = {}
    runs: dict[str, Any] = {}
    for run in client.search_runs([known.experiment_id]):
        if "sweeper.group_of" in run.data.tags:
            continue
        trial = run.data.tags["sweeper.trial"]
        assert trial not in runs, "two runs"
        runs[trial] = run
        points = defaultdict(list)
        for key in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, key):
                points[metric.step].append((key, metric.value))
        for step, figures in points.items():
            assert len(dict(figures)) == len(figures), f"step {step} twice"
        logged[trial] = [(step, dict(points[step])) for step in sorted(points)]
    return logged, runs


def of_wandb(folder: Path) -> tuple[Logged, dict[str, dict[str, Any]]]:
    """History and config of offline runs below a folder that has a folder for each trial."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged: Logged = {}
    configs: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*/wandb/offline-run-*/run-*.wandb")):
        trial = file.relative_to(folder).parts[0]
        for content in _records(file.read_bytes()):
            record = Record.FromString(content)
            for update in (*record.run.config.update, *record.config.update):
                key = update.key or "/".join(update.nested_key)
                configs.setdefault(trial, {})[key] = json.loads(update.value_json)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                figures = {key: json.loads(text) for key, text in items.items()}
                logged.setdefault(trial, []).append((int(figures["training_iteration"]), figures))
    return logged, configs


@dataclass
class WandbRun:
    """An offline run: what it is grouped under, and its artifacts' files with their sizes."""

    group: str = ""
    role: str = ""
    tags: tuple[str, ...] = ()
    artifacts: list[dict[str, int]] = field(default_factory=list)


def runs_of_wandb(folder: Path) -> dict[str, WandbRun]:
    """Offline runs below a folder that has a folder for each trial, by trial."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, WandbRun] = {}
    for file in sorted(folder.glob("*/wandb/offline-run-*/run-*.wandb")):
        run = found.setdefault(file.relative_to(folder).parts[0], WandbRun())
        for content in _records(file.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "run":
                run.group, run.role, run.tags = record.run.run_group, record.run.job_type, tuple(record.run.tags)
            elif record.WhichOneof("record_type") == "artifact":
                run.artifacts.append({entry.path: entry.size for entry in record.artifact.manifest.contents})
    return found


def _records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Records of a file of W&B: LevelDB's log format after a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
