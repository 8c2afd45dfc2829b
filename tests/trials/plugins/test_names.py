"""Names with a colon in configs: which objects they may be, what enters a trial's name, and that nothing else runs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trials.plugins.canary import NAMES
from trials.config.trial_config import TrialConfig
from trials.data import DataOptions, load_data
from trials.errors import DataError, UserError
from trials.methods.parsing import parse, parse_stored
from trials.methods.preconditions import require_runnable
from trials.models import MODELS, build
from trials.plugins.importing import admit_listed
from trials.registry import Registry
from trials.running.environment import environment_of, plugins_used
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder
from trials.training.device import resolve_device

SMALL: dict[str, Any] = {"method": "one_shot", "model": "tiny", "dataset": "digits", "density": 0.5}
OWN = {
    "model": "mynets.wide:MyNet",
    "score": "bare.pruning:squared",
    "distribution": "bare.pruning:even",
    "pattern": "bare.pruning:rows",
    "dataset": "bare.pruning:few",
    "method": "bare.pruning:Mine",
}


def config_of(code: Path, **fields: Any) -> TrialConfig:
    return parse(admit_listed({"plugins": ["./mynets", "./bare"], **SMALL, **fields}, code))


@pytest.mark.parametrize("field", OWN)
def test_a_trial_with_an_object_of_a_plug_in_trains_and_resumes_from_its_folder(
    code: Path, tmp_path: Path, field: str
) -> None:
    one_epoch = {"epochs": 1}
    config = config_of(code, **{"dataset": OWN["dataset"], field: OWN[field]}, pretrain=one_epoch, finetune=one_epoch)
    assert config.id.startswith("Mine-" if field == "method" else "one_shot-")
    state = run(config, tmp_path / "trials" / config.id, TrialHost(tmp_path / "stages"))
    assert state.status == "complete", state.error
    assert abs(state.result["density"] - 0.5) < 0.2
    assert parse_stored(config.model_dump(mode="json")) == config
    again = run(config, tmp_path / "trials" / config.id, TrialHost(tmp_path / "stages"))
    assert again.result == state.result
    sources = TrialFolder(tmp_path / "trials" / config.id).state().environments[-1]["plugin_sources"]  # type: ignore[union-attr]
    assert sources == plugins_used(config)
    assert sources.startswith("mynets=")


def test_all_of_them_together(code: Path, tmp_path: Path) -> None:
    config = config_of(code, **OWN, strength=2.0, pretrain={"epochs": 1}, finetune={"epochs": 1})
    state = run(config, tmp_path / config.id, TrialHost(tmp_path / "stages"))
    assert state.status == "complete", state.error


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"model": "mynets.wide:NUMBER"},
            "model is 'mynets.wide:NUMBER', but that is 3: it must be a class or function",
        ),
        ({"method": "mynets.wide:MyNet"}, "it must be a subclass of trials.extend.Method"),
        ({"method": "bare.pruning:NoConfig"}, "its Config is <class 'dict'>: it must be a subclass"),
        ({"method": "bare.pruning:Literal"}, "write `method: str` in Config"),
        ({"score": "mynets.wide:NUMBER"}, "score is 'mynets.wide:NUMBER', but that is 3: it must be"),
        ({"distribution": "mynets.wide:NUMBER"}, "it must be a function of layers"),
        ({"pattern": "bare.pruning:squared"}, "it must be a trials.extend.Pattern"),
        ({"dataset": "mynets.wide:NUMBER"}, "it must be a function that is called with data_dir"),
        ({"method": "bare.pruning:Mine", "strenth": 1.0}, "did you mean 'strength'?"),
    ],
)
def test_objects_of_another_kind_are_refused(code: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        config_of(code, **fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("field", "body", "said"),
    [
        ("score", "return {}", "it returned scores of nothing for conv.weight, linear.weight"),
        ("score", "return 1", "it returned 1 for"),
        ("score", "return {name: 1.0 for name in a}", "by float: shapes must be equal"),
        ("score", "return {name: w.sum() for name, w in a.items()}", "by []: shapes must be equal"),
        ("score", "raise KeyError('x')", "whose code failed: KeyError"),
        ("distribution", "return []", "of 3 layers its pools hold []: they must hold each layer once"),
        ("distribution", "return [Pool((0, 1, 2), 10**6)]", "a pool of 1420 units keeps 1000000"),
        ("distribution", "return [Pool((0, 0, 1), 1)]", "of 3 layers its pools hold [0, 0, 1]"),
    ],
)
def test_scores_and_distributions_are_tried_before_a_start(code: Path, field: str, body: str, said: str) -> None:
    imports = "from trials.sparsity.distributions import Pool"
    (code / "bare/wrong.py").write_text(f"{imports}\n\n\ndef made(a, b, c=None):\n    {body}\n")
    with pytest.raises(UserError) as caught:
        config_of(code, **{field: "bare.wrong:made"})
    assert said in str(caught.value)
    assert f"{field} is 'bare.wrong:made', whose code failed" in str(caught.value)


@pytest.mark.parametrize("field", ["model", "score", "distribution", "dataset"])
def test_what_cannot_be_called_as_asked_is_shown_the_call(code: Path, field: str) -> None:
    (code / "bare/wrong.py").write_text("def made(*, other):\n    return other\n")

    def tried() -> None:
        config = config_of(code, **{field: "bare.wrong:made"})
        require_runnable(config, load_data(config.dataset))

    with pytest.raises(UserError, match=r"TypeError: made\(\) .*\.py line \d+: .*\(.*\)") as caught:
        tried()
    assert f"{field} is 'bare.wrong:made', whose code failed" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "whose stages() returned NoneType: it must yield stages"),
        ("return [1]", "whose stages() yields 1: it must yield stages"),
        ("return []", "whose stages() yields nothing"),
        ("raise RuntimeError('no')", "whose stages() failed: RuntimeError: no"),
    ],
)
def test_stages_are_tried_before_anything_starts(code: Path, body: str, said: str) -> None:
    file = code / "bare/pruning.py"
    wrong = f"class Wrong(OneShot):\n    Config = Config\n\n    def stages(self):\n        {body}\n"
    file.write_text(f"{file.read_text()}\n\n{wrong}")
    with pytest.raises(UserError) as caught:
        config_of(code, method="bare.pruning:Wrong")
    assert said in str(caught.value)


REPORTS = {
    '("seed",)': "names 'seed', but a field of its config has that column in the table trials: rename the figure",
    '("sharpness", "strength")': "names 'strength', but a field of its config",
    '("finetune",)': "names 'finetune', but a field of its config",
    '("finetune.lr",)': "names 'finetune.lr', but a field of its config",
    '("status",)': "names 'status', but the tables have that column already: rename it, or leave it out of reports",
    '("epoch",)': "names 'epoch', but the tables have that column already",
    '("config.density",)': "but config.* is for fields of configs",
    '("mode:text",)': "but *:text is for values of another type",
    '("",)': "names '', but a column's name must be text",
    "(1,)": "names 1, but a column's name must be text",
    '"sharpness"': "is 'sharpness', but must be a tuple of column names",
}


@pytest.mark.parametrize("reports", REPORTS)
def test_figures_with_taken_names_are_refused_before_anything_starts(code: Path, reports: str) -> None:
    file = code / "bare/pruning.py"
    sound = '\n\nclass Sound(Mine):\n    reports = ("sharpness", "lr", "density", "val_accuracy")\n'
    file.write_text(f"{file.read_text()}{sound}\n\nclass Wrong(Mine):\n    reports = {reports}\n")
    config = config_of(code, method="bare.pruning:Sound")
    with pytest.raises(UserError) as caught:
        config_of(code, method="bare.pruning:Wrong")
    assert str(caught.value).startswith("method is 'bare.pruning:Wrong', whose reports ")
    assert REPORTS[reports] in str(caught.value)
    stored = {**config.model_dump(mode="json"), "method": "bare.pruning:Wrong"}
    assert parse_stored(stored).method == "bare.pruning:Wrong", "what earlier versions ran can still be read"


def test_weights_of_another_network_are_told_in_a_line(code: Path, tmp_path: Path) -> None:
    import trials

    recipes = {"pretrain": {"epochs": 1}, "finetune": {"epochs": 1}}
    fields = {**SMALL, **recipes, "model": OWN["model"], "plugins": [str(code / "mynets")]}
    trial = trials.run(fields, tmp_path / "own")
    (code / "mynets/blocks.py").write_text("WIDTH = 16\n")
    again = trials.load(trial.folder, plugins=[str(code / "mynets")])
    with (
        pytest.warns(UserWarning, match="other code"),
        pytest.raises(UserError, match="cannot be loaded"),
    ):
        again.network()


def test_what_a_builder_or_loader_returns_is_checked(code: Path) -> None:
    from trials.data import header_of

    digits = header_of(load_data("digits"))
    for model, said in (
        ("mynets.wide:not_a_net", "which made int: it must return an nn.Module"),
        ("mynets.wide:broken", "no such width"),
    ):
        with pytest.raises(UserError, match=said):
            require_runnable(config_of(code, model=model), digits)
    config_of(code)
    with pytest.raises(DataError, match="which returned NoneType: it must return a RawData"):
        load_data("bare.pruning:nothing")


def test_a_data_set_has_the_options_that_its_function_takes(code: Path) -> None:
    config_of(code)
    assert load_data("bare.pruning:with_size", None, DataOptions(image_size=8)).fingerprint == "8"
    with pytest.raises(DataError, match="image_size is 8, but is an option of"):
        load_data("bare.pruning:few", None, DataOptions(image_size=8))


def test_initial_values_depend_on_seed_and_name_only(code: Path) -> None:
    config_of(code)
    options: dict[str, Any] = {"num_classes": 10, "in_channels": 1}
    first, again, other = (build("mynets.wide:MyNet", seed=seed, **options).conv.weight for seed in (0, 0, 1))  # type: ignore[union-attr]
    assert bool((first == again).all())
    assert not bool((first == other).all())


def test_where_code_lies_is_no_part_of_a_name(code: Path, tmp_path: Path) -> None:
    here = config_of(code, model=OWN["model"])
    moved = code.rename(tmp_path / "moved")
    assert config_of(moved, model=OWN["model"]).id == here.id
    assert here.id != config_of(moved).id
    assert config_of(moved).id == parse(SMALL).id, "plug-ins that are listed and not used change no name"


@pytest.mark.parametrize("field", OWN)
def test_a_revision_other_than_1_enters_the_name(code: Path, field: str) -> None:
    module, _, attribute = OWN[field].partition(":")
    file = code / f"{module.replace('.', '/')}.py"
    text = file.read_text()
    before = config_of(code, **{field: OWN[field]})
    name, others = before.id, before.revisions
    assert field not in others
    for revision, same in ((1, True), (2, False)):
        said = f"object.__setattr__({attribute}, 'revision', {revision})" if field == "pattern" else None
        file.write_text(f"{text}\n\n{said or f'{attribute}.revision = {revision}'}\n")
        now = config_of(code, **{field: OWN[field]})
        assert (now.id == name) is same
        assert now.revisions == (others if same else {**others, field: 2})
    file.write_text(f"{text}\n\n{attribute}.revision = 'two'\n")
    if field != "pattern":
        with pytest.raises(UserError, match="has the revision 'two', but must have a whole number from 1"):
            config_of(code, **{field: OWN[field]})


def test_a_revision_is_that_of_the_trials_it_starts_from_too(code: Path) -> None:
    from trials.running.shared_trials import shared_by

    before = set(shared_by(config_of(code, model=OWN["model"])))
    file = code / "mynets/wide.py"
    file.write_text(file.read_text() + "\n\nMyNet.revision = 2\n")
    now = config_of(code, model=OWN["model"])
    assert before
    assert before.isdisjoint(shared_by(now))
    assert all(shared.plugins == now.plugins for shared in shared_by(now).values())


def test_both_revisions_of_a_method_that_inherits_its_config_count(code: Path) -> None:
    """HYDRA's config raises its own revision for random scores in channels_last."""
    text = (code / "bare/pruning.py").read_text()
    own = "from trials.methods.bip.hydra import Hydra, HydraConfig\n\n\nclass MyConfig(HydraConfig):\n    method: str\n"
    names = set()
    for revision in (1, 2, 3):
        (code / "bare/pruning.py").write_text(
            f"{text}\n\n{own}\n\nclass MyHydra(Hydra):\n    Config = MyConfig\n    revision = {revision}\n"
        )
        fields = {"score_init": "random", "memory_format": "channels_last"}
        config = config_of(code, method="bare.pruning:MyHydra", **fields)
        assert config.revision != 1
        names.add(config.id)
    assert len(names) == 3


def test_a_network_that_is_built_with_other_code_is_told(code: Path, tmp_path: Path) -> None:
    import trials

    recipes = {"pretrain": {"epochs": 1}, "finetune": {"epochs": 1}}
    fields = {**SMALL, **recipes, "model": OWN["model"], "plugins": [str(code / "mynets"), str(code / "bare")]}
    trial = trials.run({**fields, "dataset": OWN["dataset"]}, tmp_path / "own")
    trial.network()
    (code / "mynets/wide.py").write_text((code / "mynets/wide.py").read_text() + "# a comment\n")
    with pytest.warns(UserWarning, match=r"goes on with other code: mynets "):
        again = trials.run({**fields, "dataset": OWN["dataset"]}, tmp_path / "own")
    with pytest.warns(UserWarning, match=r"was computed with other code than its network is built with now: mynets "):
        again.network()


def test_a_shared_trial_that_other_code_has_computed_is_told(code: Path, tmp_path: Path) -> None:
    """Its name holds the text ``mynets.wide:MyNet``, which another folder's network may have too."""
    told: list[str] = []
    host = TrialHost(tmp_path / "stages", warn=told.append)

    def comment(file: str) -> None:
        (code / file).write_text((code / file).read_text() + "# a comment\n")

    one_epoch = {"epochs": 1}

    def ran(**fields: Any) -> None:
        config = config_of(
            code, **{"dataset": "bare.pruning:few", "pretrain": one_epoch, "finetune": one_epoch, **fields}
        )
        assert run(config, tmp_path / "trials" / config.id, host).status == "complete"

    ran(model=OWN["model"])
    comment("bare/pruning.py")
    ran(model=OWN["model"], density=0.4)
    assert len(told) == 1
    assert "which it starts from, was computed with other code (bare " in told.pop()
    ran(model="tiny", dataset="digits", val_fraction=0.9)
    comment("mynets/wide.py")
    ran(model="tiny", dataset="digits", val_fraction=0.9, density=0.4)
    assert told == [], "code that a trial lists and does not name is none of its own"
    ran(model=OWN["model"], density=0.3)
    assert len(told) == 2


def test_names_must_lie_under_the_plugins_of_the_same_config(code: Path) -> None:
    config_of(code)  # so that this process has admitted them
    for fields in ({"model": OWN["model"]}, {"method": OWN["method"]}, {"score": OWN["score"], "plugins": ["mynets"]}):
        with pytest.raises(UserError, match="plugins lists no"):
            parse({**SMALL, **fields})
    regrow = {"method": "regrow", "dataset": "digits", "model": "tiny", "prune": {"score": OWN["score"]}}
    with pytest.raises(UserError, match=r"prune\.score is 'bare.pruning:squared', but plugins lists no bare"):
        parse(regrow)
    assert parse({**regrow, "plugins": ["bare"]}).id.startswith("regrow-")


def test_environments_without_plug_ins_say_nothing_of_them() -> None:
    config = parse(SMALL)
    assert "plugin_sources" not in environment_of(config, resolve_device("cpu"), 1, "c")


def test_a_registry_iterates_over_its_own_names_and_knows_others(code: Path) -> None:
    config_of(code)
    assert "mynets.wide:MyNet" in MODELS
    assert "mynets.wide:MyNet" not in set(MODELS)
    assert "os:system" not in MODELS
    assert 3 not in MODELS
    assert MODELS.get("os:system") is None
    with pytest.raises(KeyError):
        MODELS["nowhere"]
    kept: Registry[int] = Registry("numbers", {"one": 1}, int, {"digit": int})
    assert (kept["digit:7"], kept["one"], len(kept), list(kept)) == (7, 1, 1, ["one"])


FIELDS = (
    "method",
    "model",
    "dataset",
    "score",
    "distribution",
    "pattern",
    "source_net",
    "data_dir",
    "plugins",
    "device",
)


def test_contents_run_no_code_that_nobody_has_listed(canary: Path) -> None:
    """No config, typed or stored, imports a module by what its fields hold."""

    @settings(max_examples=150, deadline=None)
    @given(st.dictionaries(st.sampled_from(FIELDS), NAMES, min_size=1), st.booleans())
    def fuzz(fields: dict[str, Any], stored: bool) -> None:
        with contextlib.suppress(UserError):
            (parse_stored if stored else parse)({**SMALL, **fields})
        assert "canary" not in sys.modules
        assert not canary.exists()

    fuzz()


def test_the_canary_sings_if_it_is_listed(canary: Path) -> None:
    with pytest.raises(UserError):
        require_runnable(
            parse(admit_listed({**SMALL, "plugins": ["canary"], "model": "canary:sing"}, Path.cwd())),
            __import__("trials.data").data.require_data("digits"),
        )
    assert canary.exists()
