"""Samplers from outside this package: subclasses of :class:`Sampler`, and Optuna samplers as they are."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from optuna.samplers import BaseSampler
from pydantic import ConfigDict

from sweeper.space.options.sampler import Question, Sampler
from trials.errors import UserError
from trials.plugins.blaming import blaming


class OptunaSampler(Sampler):
    """An Optuna sampler of the user's own; every option but the name is passed to its class.

    Each sample gets a new instance, so the class must keep its state in the study, as Optuna's own samplers do.
    """

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[type[BaseSampler]]
    learns: ClassVar[bool] = True

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        with blaming(f"sampler is {self.name!r}, whose code failed"):
            return self.kind(**self._arguments(seed))

    def check(self, question: Question) -> None:
        try:
            inspect.signature(self.kind).bind(**self._arguments(0))
        except TypeError as error:
            raise UserError(
                f"sampler is {self.name!r}, whose {self.kind.__name__} cannot be called with the options given "
                f"({error}): it takes {inspect.signature(self.kind)}"
            ) from None

    def _arguments(self, seed: int) -> dict[str, Any]:
        given = dict(self.model_extra or {})
        return {"seed": seed, **given} if "seed" in inspect.signature(self.kind).parameters else given


def sampler_class(found: Any) -> type[Sampler]:
    """Return a sampler from outside as options of a space; raises TypeError if it is none."""
    if isinstance(found, type) and issubclass(found, Sampler):
        return found
    if isinstance(found, type) and issubclass(found, BaseSampler):
        return type(found.__name__, (OptunaSampler,), {"kind": found, "__doc__": found.__doc__, "__module__": __name__})
    raise TypeError(f"that is {found!r}: it must be a subclass of optuna.samplers.BaseSampler, or of this project's")
