"""Revisions: which configs have one, and what it does to their names; stored configs beside those of now."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trials.configs import SMALLEST
from trials.config import revisions
from trials.config.revisions import Revised
from trials.config.stored_content import ABSENT, differing_fields
from trials.config.trial_config import WHERE
from trials.dotted_paths import drop_at
from trials.methods.parsing import parse, parse_stored
from trials.methods.registry import METHODS


def released(method: str) -> dict[str, Any]:
    """The smallest config, rounded as before there was a choice."""
    if "rounding" in METHODS[method].Config.model_fields:
        return {**SMALLEST[method], "rounding": "released"}
    return SMALLEST[method]


RANDOM = {"score_init": "random", "memory_format": "channels_last"}


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_config_of_every_method_is_of_revision_1(method: str) -> None:
    config = parse(released(method))
    assert (config.revision, config.revised_because, config.revisions) == (1, "", {})
    assert config.name_at({}) == config.id


@pytest.mark.parametrize(
    ("fields", "revised"),
    [
        ({"method": "bip", **RANDOM}, True),
        ({"method": "hydra", **RANDOM}, True),
        ({"method": "hydra", **RANDOM, "pattern": "filter"}, True),
        ({"method": "bip", **RANDOM, "optimizers": "shared"}, False),  # they step tensor by tensor
        ({"method": "bip", **RANDOM, "memory_format": "contiguous"}, False),
        ({"method": "bip", **RANDOM, "memory_format": "auto"}, False),  # contiguous on a CPU; CUDA raised an error
        ({"method": "hydra", **RANDOM, "score_init": "copy"}, False),
        ({"method": "bip", **RANDOM, "variant": "original"}, False),  # whose optimisers are shared
    ],
)
def test_random_scores_in_channels_last_are_of_revision_2(fields: dict[str, Any], revised: bool) -> None:
    config = parse({**released("bip"), **fields})
    assert config.revisions == ({"method": 2} if revised else {})
    assert (config.id != config.name_at({})) == revised
    assert bool(config.revised_because) == revised
    assert bool(revisions.revised_parts(config)) == revised


@pytest.mark.parametrize("method", METHODS)
def test_a_revision_renames_exactly_the_configs_that_it_applies_to(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    before = {seed: parse({**released(method), "seed": seed}).id for seed in (0, 1)}
    entries = [Revised("sparsity", number, lambda config: config.seed == 1, "of ties") for number in (3, 2)]
    monkeypatch.setattr(revisions, "REVISED", tuple(entries))
    now = {seed: parse({**released(method), "seed": seed}) for seed in (0, 1)}
    assert now[0].id == before[0]
    assert now[1].id != before[1]
    assert now[1].revisions == {"sparsity": 3}  # the highest
    assert now[1].name_at({}) == before[1]
    assert now[1].name_at({"sparsity": 2}) not in (before[1], now[1].id)


@pytest.mark.parametrize("method", METHODS)
def test_a_config_differs_in_no_field_from_its_own_json(method: str) -> None:
    config = parse(SMALLEST[method])
    stored = config.model_dump(mode="json")
    assert list(differing_fields(stored, config)) == []
    assert list(differing_fields({**stored, **dict.fromkeys(WHERE, "elsewhere"), "later": 1}, config)) == []
    given = {name: stored[name] for name in SMALLEST[method]}
    assert list(differing_fields(given, config)) == []  # what is absent is the default


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ({"seed": 1}, [("seed", 1, 0)]),
        ({"density": 0.2}, []),
        ({"prune": None}, [("prune", None, "recipe")]),
        ({"prune": {"lr": 0.5, "epochs": 7}}, [("prune.epochs", 7, 100), ("prune.lr", 0.5, 0.1)]),
        ({"prune": {}}, []),
        ({"lineage": [{"until_epoch": 1, "values": {}}]}, [("lineage", [{"until_epoch": 1, "values": {}}], [])]),
    ],
)
def test_fields_that_differ(stored: dict[str, Any], found: list[tuple[str, Any, Any]]) -> None:
    config = parse(SMALLEST["bip"])
    got = list(differing_fields({**SMALLEST["bip"], **stored}, config))
    assert sorted((path, before) for path, before, _ in got) == sorted((path, before) for path, before, _ in found)
    for path, _, now in found:
        if now != "recipe":
            assert (path, now) in [(other, value) for other, _, value in got]


def test_a_value_given_now_that_the_stored_config_lacks_differs() -> None:
    config = parse({**SMALLEST["bip"], "augment": False, "prune": {"momentum": 0.5}})
    found = list(differing_fields({**SMALLEST["bip"], "prune": {"epochs": 100}}, config))
    assert sorted(found, key=str) == sorted([("augment", ABSENT, False), ("prune.momentum", ABSENT, 0.5)], key=str)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("a", {"b": {"c": 1, "d": 2}}),
        ("b.c", {"a": 0, "b": {"d": 2}}),
        ("b", {"a": 0}),
        ("b.c.e", {"a": 0, "b": {"c": 1, "d": 2}}),
        ("x.y", {"a": 0, "b": {"c": 1, "d": 2}}),
        ("x", {"a": 0, "b": {"c": 1, "d": 2}}),
    ],
)
def test_drop_at(path: str, left: dict[str, Any]) -> None:
    content: dict[str, Any] = {"a": 0, "b": {"c": 1, "d": 2}}
    drop_at(content, path)
    assert content == left


def test_drop_at_leaves_no_empty_mapping() -> None:
    content: dict[str, Any] = {"a": {"b": {"c": 1}}}
    drop_at(content, "a.b.c")
    assert content == {}


ROUNDS, RANKS = {"rounding": 2}, {"scores": 2}
UNKNOWN = {"dataset": "folder", "data_dir": "/elsewhere"}


@pytest.mark.parametrize(
    ("method", "fields", "revised"),
    [
        ("one_shot", {"density": 0.05}, {}),  # 953 of 19,056 weights either way
        ("one_shot", {"density": 0.2}, ROUNDS),  # 3811, not 3812
        ("one_shot", {"density": 1.0}, {}),
        ("one_shot", {"density": 0.05, **UNKNOWN}, ROUNDS),  # its classes are not known to the config
        ("one_shot", {"density": 1.0, **UNKNOWN}, {}),
        ("one_shot", {"density": 0.05, "source_net": "weights.pt"}, ROUNDS),  # its mask may leave any number
        ("one_shot", {"density": 0.05, "distribution": "uniform"}, ROUNDS),
        ("one_shot", {"density": 0.5, "pattern": "filter"}, {}),
        ("one_shot", {"density": 0.5, "pattern": "filter", "score": "random"}, RANKS),
        ("one_shot", {"density": 0.5, "pattern": "filter", "score": "lamp"}, RANKS),
        ("one_shot", {"density": 1.0, "pattern": "filter", "score": "lamp"}, {}),  # all stay, however they are ranked
        ("one_shot", {"density": 0.05, "score": "random"}, {}),
        ("bip", {"density": 0.2}, ROUNDS),
        ("bip", {"density": 0.2, "variant": "original"}, {}),  # rounds as released
        ("bip", {"density": 0.2, "score_init": "random"}, ROUNDS),  # its draws are first values, not a ranking
        ("imp", {"levels": 1, "prune_fraction": 0.5}, {}),
        ("imp", {}, ROUNDS),  # level 1 keeps one weight less
        ("prune_iterative", {}, {}),  # LAMP's code rounds to the nearest, too
        ("prune_iterative", UNKNOWN, {}),
        ("prune_iterative", {"distribution": "uniform"}, ROUNDS),
        ("prune_iterative", {"score": "magnitude", **UNKNOWN}, ROUNDS),
        ("prune_iterative", {"pattern": "filter", "levels": 2}, RANKS),
        ("prune_iterative", {"pattern": "filter", "levels": 2, "score": "magnitude"}, {}),
        ("regrow", {}, {}),
        ("regrow", {"unit": "filter"}, RANKS),
        ("regrow", {"prune": {"distribution": "uniform"}}, ROUNDS),
        ("single_layer", {"prune": {"distribution": "uniform"}}, ROUNDS),
        ("adaptive_sparsity", {"exact_target": True, "starget": 0.5}, {}),
        ("adaptive_sparsity", {"exact_target": True, "mode": "fixed", "starget": 0.7}, ROUNDS),
        ("adaptive_sparsity", {"mode": "fixed", "starget": 0.7}, {}),  # no cut at the end
        ("global_prune", {}, {}),
    ],
)
def test_exactly_what_is_counted_or_ranked_otherwise_has_another_name(
    method: str, fields: dict[str, Any], revised: dict[str, int]
) -> None:
    config = parse({**SMALLEST[method], **fields})
    assert config.revisions == revised
    assert (config.id != config.name_at({})) == bool(revised)
    if "rounding" in type(config).model_fields or "prune" in fields:
        as_before = {**SMALLEST[method], **fields}
        if "rounding" in type(config).model_fields:
            as_before["rounding"] = "released"
        else:
            as_before["prune"] = {**fields["prune"], "rounding": "released"}
        before = parse(as_before)
        assert before.name_at({}) == config.name_at({})
        assert "rounding" not in before.revisions
        assert (before.id == config.id) == ("rounding" not in revised)


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [("bip", "rounding", {}), ("regrow", "prune.rounding", {"prune": {"distribution": "uniform"}})],
)
def test_a_stored_config_without_rounding_was_rounded_as_released(
    method: str, path: str, fields: dict[str, Any]
) -> None:
    now = parse({**SMALLEST[method], **fields})
    stored = now.model_dump(mode="json")
    drop_at(stored, path)
    assert list(differing_fields(stored, now)) == []  # a revision keeps them apart
    then = parse_stored(stored)
    assert list(differing_fields(stored, then)) == []
    assert then.id == now.name_at({}) != now.id
    assert [found for found, _, _ in differing_fields(now.model_dump(mode="json"), then)] == [path]


def test_roundings_that_count_the_same_are_one_trial() -> None:
    nearest, released = (
        parse({**SMALLEST["one_shot"], "density": 0.05, "rounding": r}) for r in ("nearest", "released")
    )
    assert nearest.id == released.id
    assert list(differing_fields(nearest.model_dump(mode="json"), released)) == []
    assert list(differing_fields(released.model_dump(mode="json"), nearest)) == []
