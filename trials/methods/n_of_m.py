"""N:M sparsity in a config: N of every M consecutive input channels stay, which implies the density.

Mishra et al. 2021, https://arxiv.org/abs/2104.08378; torch.sparse.to_sparse_semi_structured multiplies 2:4 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from trials.frozen import Frozen
from trials.sparsity import PATTERNS, Pattern, n_of_m


class TakesNM(Frozen):
    """Fields of methods that prune by pattern ``nm`` beside others.

    Attributes:
        nm: with pattern ``nm``, N and M: of every M consecutive input channels, at every position of the kernel, the N
            weights with the highest scores stay. Default: [2, 4]. Density is N / M and can be left out. Layers whose
            number of input channels (of a group) is no multiple of M stay dense and are not counted.
    """

    nm: tuple[int, int] | None = Field(default=None, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _what_nm_implies(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        found = dict(content)
        if found.get("nm") is not None:
            found.setdefault("pattern", "nm")
        if found.get("pattern") == "nm":
            nm = found["nm"] = [2, 4] if found.get("nm") is None else found["nm"]
            if isinstance(nm, (list, tuple)) and len(nm) == 2 and all(isinstance(n, int) and n > 0 for n in nm):
                found.setdefault("density", nm[0] / nm[1])
        return found

    @model_validator(mode="after")
    def _agrees_with_nm(self) -> TakesNM:
        pattern, density = getattr(self, "pattern"), getattr(self, "density")  # noqa: B009  fields of the subclasses
        if self.nm is None:
            return self
        n, m = self.nm
        if pattern != "nm":
            raise ValueError(f"nm is {[n, m]}, but pattern is {pattern!r}: give pattern nm, or leave out nm")
        if not 1 <= n < m:
            raise ValueError(f"nm is {[n, m]}, but of M weights N stay, so that 1 <= N < M: give for example [2, 4]")
        if abs(density - n / m) > 1e-9:
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
