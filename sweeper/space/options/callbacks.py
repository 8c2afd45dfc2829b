"""The section ``callbacks``: Ray Tune callbacks, such as loggers, that follow a sweep's trials.

They are chosen and checked here, and made in :mod:`sweeper.execution.on_ray.callbacks`, since only that folder knows
Ray. Nothing that a trial computes depends on them, so a sweep may be resumed with others.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, Field

from sweeper.space.options.named_options import NamedOptions
from trials.errors import UserError, shown, unknown_name
from trials.frozen import validate
from trials.optional import DISTRIBUTION
from trials.registry import Registry
from trials.system.user_path import user_path


@dataclass(frozen=True)
class RayLogger:
    """A logger of Ray Tune's, or one derived from it.

    Attributes:
        module, attribute: where its class is.
        library: what it needs.
        options: names of the options it takes; None: also those of a function of the library.
        artifacts: whether its runs can hold files.
        key: the option that would put a key into the space, and the variable that holds it instead.
    """

    module: str
    attribute: str
    library: str
    options: tuple[str, ...] | None = None
    artifacts: bool = True
    key: tuple[str, str] | None = None


ARTIFACTS = ("masks", "dense", "prune", "compact")
"""What of a complete trial can be attached to its run: its masks, and its network in forms of ``export``."""

_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
"""User and password in an address."""

_OURS = "sweeper.execution.on_ray.trackers"

_OF_MLFLOW = (
    "experiment_name",
    "log_params_on_trial_end",
    "registry_uri",
    "save_artifact",
    "tags",
    "tracking_token",
    "tracking_uri",
)

_BUILT_IN: dict[str, Any] = {
    "comet": RayLogger(f"{_OURS}.comet_runs", "CometRuns", "comet_ml", key=("api_key", "COMET_API_KEY")),
    "mlflow": RayLogger(
        f"{_OURS}.mlflow_runs", "MLflowRuns", "mlflow", _OF_MLFLOW, key=("tracking_token", "MLFLOW_TRACKING_TOKEN")
    ),
    "tensorboard": RayLogger(f"{_OURS}.tensorboard_runs", "TensorBoardRuns", "tensorboardX", (), artifacts=False),
    "wandb": RayLogger(f"{_OURS}.wandb_runs", "WandbRuns", "wandb", key=("api_key", "WANDB_API_KEY")),
}


def _is_of_tune(made: type) -> bool:
    """Whether a class is a callback of Tune's, told by name: this module does not import Ray."""
    return any((base.__module__, base.__name__) == ("ray.tune.callback", "Callback") for base in made.__mro__)


def _is_callback(found: Any) -> Callable[..., Any]:
    if not callable(found):
        raise TypeError(f"that is {found!r}: it must be a class or function that makes a ray.tune.Callback")
    kept: Callable[..., Any] = found
    return kept


CALLBACKS: Registry[Any] = Registry("callbacks", _BUILT_IN, _is_callback)
"""Callbacks by name; also those of plug-ins (:mod:`trials.registry`)."""


class TrialCallback(NamedOptions):
    """A callback and its options; those that are not named here are passed to its class.

    Attributes:
        name: ``tensorboard``, ``mlflow``, ``wandb``, ``comet``, or ``module:attribute`` of a plug-in.
        folder: where files of it lie, a folder for each trial; None: ``logs/NAME`` in the sweep's folder.
        timeout_s: seconds that one call of it may take, as its set-up, and that a run waits for it at its end.
    """

    model_config = ConfigDict(extra="allow")

    folder: str | None = Field(default=None, min_length=1)
    timeout_s: float = Field(default=60.0, gt=0, le=threading.TIMEOUT_MAX, allow_inf_nan=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """What is passed to its class."""
        given = dict(self.model_extra or {})
        if self._is_built_in:
            given.pop("artifacts", None)
        return given

    @property
    def artifacts(self) -> tuple[str, ...]:
        """What of a complete trial is attached to its run: of ARTIFACTS, in the order given. Plug-ins attach their own.

        Raises:
            UserError: it is something else.
        """
        given = (self.model_extra or {}).get("artifacts") if self._is_built_in else None
        listed = [] if given in (None, "none") else [given] if isinstance(given, str) else given
        where = f"callbacks has {self.name!r}, whose artifacts"
        if not isinstance(listed, list | tuple):
            raise UserError(f"{where} is {shown(given)}, but must be a list of {', '.join(ARTIFACTS)}: write [masks]")
        for one in listed:
            if one not in ARTIFACTS:
                raise UserError(unknown_name(where, one, ARTIFACTS))
        return tuple(dict.fromkeys(listed))

    @property
    def _is_built_in(self) -> bool:
        return self.name in _BUILT_IN

    def document(self) -> str | dict[str, Any]:
        content = {key: value for key, value in self.model_dump(mode="json").items() if value is not None}
        if self.timeout_s == TrialCallback.model_fields["timeout_s"].default:
            del content["timeout_s"]
        return self.name if content.keys() == {"name"} else content

    def check(self) -> None:
        """Raise a UserError if its library is not installed, or if it cannot be called with its options."""
        made = CALLBACKS.require(self.name, "callbacks")
        if isinstance(made, RayLogger):
            self._check_options(made)
            if importlib.util.find_spec(made.library) is None:
                raise UserError(
                    f"callbacks has {self.name!r}, which needs {made.library}, which is not installed: "
                    f"pip install '{DISTRIBUTION}[trackers]'"
                )
            return
        if isinstance(made, type) and not _is_of_tune(made):
            raise UserError(
                f"callbacks has {self.name!r}, but {made.__name__} is no ray.tune.Callback: derive it from that"
            )
        try:
            inspect.signature(made).bind(**self.arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"callbacks has {self.name!r}, which cannot be called with its options ({error})") from None

    def _check_options(self, made: RayLogger) -> None:
        has = f"callbacks has {self.name!r} with"
        if self.artifacts and not made.artifacts:
            raise UserError(
                f"{has} artifacts, but its files hold none: leave artifacts out, or give them to mlflow, wandb or comet"
            )
        if made.key is not None and made.key[0] in self.arguments:
            raise UserError(
                f"{has} {made.key[0]}, but a space and its sweep.yaml are no place for a key: leave it out, and set "
                f"{made.key[1]} in the environment of the command"
            )
        for option, value in self.arguments.items():
            if isinstance(value, str) and _PASSWORD.search(value):
                raise UserError(
                    f"{has} a password in {option}, but a space and its sweep.yaml are no place for one: leave it out "
                    "of the address, and set it in the environment of the command (MLFLOW_TRACKING_USERNAME, "
                    "MLFLOW_TRACKING_PASSWORD)"
                )
        every = ("artifacts", "folder", "timeout_s") if made.artifacts else ("folder", "timeout_s")
        known = None if made.options is None else (*every, *made.options)
        for option in self.arguments:
            if known is not None and option not in known:
                raise UserError(unknown_name(f"an option of the callback {self.name}", option, sorted(known)))


def read_callbacks(content: object, plugins: Collection[str] = ()) -> tuple[TrialCallback, ...]:
    """Parse ``callbacks``: a list of names, or of mappings of ``name`` and options.

    Args:
        plugins: those of the space, under which a name ``module:attribute`` must lie.

    Raises:
        UserError: it is no such list, a name is unknown, or one is there twice, by whatever path of its folder.
    """
    if content is None:
        return ()
    if isinstance(content, str | bytes | dict) or not isinstance(content, list | tuple):
        raise UserError(f"callbacks is {shown(content)}, but must be a list: write - tensorboard below it")
    found = tuple(_read(entry, f"callbacks[{index}]", plugins) for index, entry in enumerate(content))
    for index, callback in enumerate(found):
        if callback in found[:index]:
            raise UserError(
                f"callbacks[{index}] is {shown(callback.document())} again, and both would write the same files: "
                "remove one"
            )
        same = next((i for i, other in enumerate(found[:index]) if _write_the_same(callback, other)), None)
        if same is not None:
            raise UserError(
                f"callbacks[{index}] writes to the folder of callbacks[{same}], {shown(callback.folder)}, with equal "
                "options: remove one, or give another folder"
            )
    return found


def _write_the_same(one: TrialCallback, other: TrialCallback) -> bool:
    """Whether two callbacks of one kind and the same options have one folder; those by default have two."""
    if one.folder is None or other.folder is None or (one.name, one.arguments) != (other.name, other.arguments):
        return False
    one_path, other_path = (user_path(each, "folder") for each in (one.folder, other.folder))
    return one_path.resolve() == other_path.resolve()


def _read(content: object, where: str, plugins: Collection[str]) -> TrialCallback:
    if isinstance(content, TrialCallback):
        return content
    content = {"name": content} if isinstance(content, str) else content
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise UserError(f"{where} is {shown(content)}, but must be a name or {{name: NAME, OPTION: VALUE, ...}}")
    name = content["name"]
    if ":" not in name and name not in CALLBACKS:
        raise UserError(unknown_name(where, name, CALLBACKS))
    CALLBACKS.require(name, where, plugins)
    made: TrialCallback = validate(TrialCallback, content, where)
    if made.folder is not None:
        user_path(made.folder, f"{where}.folder")
    return made
