"""Learning rates of BiP and HYDRA by density: the published one, 0.1, collapses at very low densities.

Scores that start as copies of the weights, and compete over the whole network, empty layers at a rate of 0.1 once only
a few per cent of them are kept: the network ends at chance level (results/measured). From a density of 0.05 on, the
published rate stays. Below, the default is a quarter of the density, at most 0.01, the rate that BiP's authors ship for
ImageNet. A rate that a config gives is never changed, and ``variant: original`` keeps 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from trials.config.recipes import Recipe

_PUBLISHED, _FROM, _MOST = 0.1, 0.05, 0.01


def corrected_rate(density: float) -> float:
    """The default learning rate of weights and scores at a density in (0, 1].

    >>> [corrected_rate(density) for density in (0.5, 0.05, 0.04, 0.02, 0.01)]
    [0.1, 0.1, 0.01, 0.005, 0.0025]
    """
    return _PUBLISHED if density >= _FROM else min(_MOST, density / 4)


def with_corrected_rates(content: Mapping[str, Any], rates: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``content`` with the default rates of its density written into ``prune.lr`` and the fields ``rates``.

    Only where single weights compete and scores are copied, and where a rate is not given. Where the published rate
    stays, nothing is written. Since another rate is part of a trial's name, no name gets another meaning.
    """
    filled, density = dict(content), content.get("density")
    plain = content.get("pattern", "weight") == "weight" and content.get("score_init", "copy") == "copy"
    if not plain or isinstance(density, bool) or not isinstance(density, Real) or density <= 0:
        return filled
    rate = corrected_rate(float(density))
    if rate == _PUBLISHED:
        return filled
    recipe = filled.get("prune", {})
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(include=recipe.model_fields_set)
    if isinstance(recipe, Mapping) and not recipe.get("lr_steps"):
        filled["prune"] = {"lr": rate, **recipe}
    return {**dict.fromkeys(rates, rate), **filled}
