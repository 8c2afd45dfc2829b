"""N:M sparsity in a config: N of every M consecutive input channels stay, which implies the density.

Mishra et al. 2021, https://arxiv.org/abs/2104.08378; torch.sparse.to_sparse_semi_structured multiplies 2:4 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from trials.frozen import Frozen
from trials.sparsity import PATTERNS, Pattern, n_of_m

DEFAULT = (2, 4)

CLOSE = 1e-9
"""A density that is N / M but for this means N / M: a third cannot be written out."""


def _n_and_m(value: Any) -> tuple[int, int]:
    """Return N and M of ``[2, 4]`` or ``"2:4"``, which a grid can hold. Raises ValueError if they are none."""
    parts = value.split(":") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and len(parts) == 2:
        text = [str(part).strip() for part in parts]  # so that neither 2.0 nor true is a number here
        if all(part.isascii() and part.isdigit() for part in text) and 1 <= int(text[0]) < int(text[1]):
            return int(text[0]), int(text[1])
    raise ValueError(f"nm is {value!r}, but of every M weights N stay, 1 <= N < M: write [2, 4] or 2:4")


class TakesNM(Frozen):
    """Fields of methods that prune by pattern ``nm`` beside others.

    Attributes:
        nm: with pattern ``nm``, N and M: of every M consecutive input channels, at every position of the kernel, the N
            weights with the highest scores stay. Default: [2, 4], also written ``"2:4"``. Density is N / M and can be
            left out. Layers whose number of input channels (of a group) is no multiple of M stay dense and are not
            counted.
    """

    nm: tuple[int, int] | None = Field(default=None, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _what_nm_implies(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        found = dict(content)
        if found.get("nm") is None:
            if found.get("pattern") != "nm":
                return content
            found["nm"] = DEFAULT
        n, m = found["nm"] = _n_and_m(found["nm"])
        if found.setdefault("pattern", "nm") != "nm":
            raise ValueError(f"nm is {[n, m]}, but pattern is {found['pattern']!r}: give pattern nm, or leave out nm")
        density = found.get("density")
        if density is None or (isinstance(density, float) and abs(density - n / m) <= CLOSE):
            found["density"] = n / m  # one value for one meaning, since it is part of the trial's name
        return found

    @model_validator(mode="after")
    def _agrees_with_nm(self) -> TakesNM:
        if self.nm is None:
            return self
        (n, m), density = self.nm, getattr(self, "density")  # noqa: B009  a field of the subclasses
        if density != n / m:
            raise ValueError(
                f"density is {density}, but nm {[n, m]} keeps {n / m:.4g}: leave out density, or change nm"
            )
        distribution = getattr(self, "distribution", "global")
        if "distribution" in type(self).model_fields and distribution != "global":
            raise ValueError(
                f"distribution is {distribution!r}, but nm keeps the same share of every layer: leave out distribution"
            )
        return self

    @property
    def units(self) -> Pattern:
        """The pattern, with its N and M."""
        return PATTERNS[getattr(self, "pattern")] if self.nm is None else n_of_m(*self.nm)  # noqa: B009
