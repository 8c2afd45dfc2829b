"""Messages for invalid configs."""

from __future__ import annotations

import pytest

from tests.trials.configs import SMALLEST, WHAT
from trials.errors import UserError, unknown_name
from trials.methods.parsing import parse
from trials.methods.registry import METHODS

METHOD_NAMES = ", ".join(sorted(METHODS))
BIP, L1 = SMALLEST["bip"], SMALLEST["l1"]
WRONG: list[tuple[object, list[str]]] = [
    ({**BIP, "density": 0}, ["density is 0", "greater than 0"]),
    ({**BIP, "density": 1.5}, ["density is 1.5", "less than or equal to 1"]),
    ({**BIP, "density": -1}, ["density is -1", "greater than 0"]),
    ({**BIP, "density": "0.2"}, ["density is '0.2'", "must be a valid number"]),
    ({**BIP, "density": True}, ["density is True", "must be a valid number"]),
    ({**BIP, "density": float("nan")}, ["density is nan", "finite"]),
    ({**BIP, "density": None}, ["density is None", "must be a valid number"]),
    ({"method": "bip", **WHAT}, ["density is missing", "add it"]),
    ({**BIP, "densty": 0.2}, ["'densty', but must be one of", "did you mean 'density'?"]),
    ({**BIP, "prune": {"epoch": 3}}, ["prune", "'epoch', but must be one of", "did you mean 'epochs'?"]),
    ({**BIP, "finetune": {"shedule": "step"}}, ["finetune", "'shedule'", "did you mean 'schedule'?"]),
    ({**BIP, "prune": {"lr": "fast"}}, ["prune.lr is 'fast'", "must be a valid number"]),
    ({**BIP, "prune": {"epochs": 1.5}}, ["prune.epochs is 1.5", "integer"]),
    ({**BIP, "prune": {"momentum": 1}}, ["prune.momentum is 1", "less than 1"]),
    ({**BIP, "prune": 3}, ["prune is 3", "mapping"]),
    ({**BIP, "seed": -1}, ["seed is -1", "greater than or equal to 0"]),
    ({**BIP, "seed": 1.0}, ["seed is 1.0", "integer"]),
    ({**BIP, "seed": True}, ["seed is True", "integer"]),
    ({**BIP, "seed": "1:30"}, ["seed is '1:30'", "integer"]),
    ({**BIP, "prune": {"epochs": "1_000"}}, ["prune.epochs is '1_000'", "integer: write 1000"]),
    ({**BIP, "augment": "yes"}, ["augment is 'yes', but must be true or false"]),
    ({**BIP, "capture": "off"}, ["capture is 'off', but must be true or false"]),
    ({**BIP, "val_fraction": 0}, ["val_fraction is 0", "greater than 0"]),
    ({**BIP, "precision": "fp16"}, ["precision is 'fp16'", "'bf16'", "'float64'"]),
    ({**BIP, "pattern": "kernel"}, ["pattern is 'kernel'", "'weight'"]),
    ({**BIP, "method": "bipp"}, ["method is 'bipp'", METHOD_NAMES, "did you mean 'bip'?"]),
    ({**BIP, "method": ["bip"]}, ["method is ['bip']", METHOD_NAMES]),
    ({**BIP, "method": None}, ["method is None", METHOD_NAMES]),
    ({**BIP, "model": "tinny"}, ["model is 'tinny'", "resnet20s", "did you mean 'tiny'?"]),
    ({**BIP, "dataset": "cifar"}, ["dataset is 'cifar'", "cifar10", "digits"]),
    ({**BIP, "mask_schedule": "cosin"}, ["mask_schedule is 'cosin'", "constant", "did you mean 'cosine'?"]),
    ({**BIP, "prune": {"schedule": "steps"}}, ["prune.schedule", "'steps'", "did you mean 'step'?"]),
    ({**SMALLEST["one_shot"], "score": "magnitud"}, ["score is 'magnitud'", "random", "did you mean 'magnitude'?"]),
    ({**SMALLEST["one_shot"], "distribution": "erd"}, ["distribution is 'erd'", "erk, global, uniform"]),
    ({**SMALLEST["one_shot"], "pattern": "weights"}, ["pattern is 'weights'", "did you mean 'weight'?"]),
    ({**SMALLEST["imp"], "pattern": "filter"}, ["pattern is 'filter'", "use one_shot"]),
    ({**SMALLEST["imp"], "finetune": {"schedule": "steps"}}, ["finetune.schedule", "'steps'", "did you mean 'step'?"]),
    ({**SMALLEST["regrow"], "finetune": {"schedule": "step"}}, ["finetune.schedule", "'step'", "constant, cosine"]),
    ({**SMALLEST["adaptive_sparsity"], "train": {"schedule": "x"}}, ["train.schedule", "'x'", "cosine_restart"]),
    ({**SMALLEST["regrow"], "prune": {"score": "lam"}}, ["prune.score", "'lam'", "did you mean 'lamp'?"]),
    ({**SMALLEST["regrow"], "prune": {"distribution": "er"}}, ["prune.distribution", "'er'", "did you mean 'erk'?"]),
    ({**SMALLEST["imp"], "rewind": "weight"}, ["rewind is 'weight'", "'learning_rate'"]),
    ({**SMALLEST["imp"], "prune_fraction": 1}, ["prune_fraction is 1", "less than 1"]),
    ({**SMALLEST["imp"], "rewind_epoch": 200}, ["rewind_epoch is 200", "less than pretrain's 200"]),
    ({**SMALLEST["imp"], "rewind": "none", "rewind_epoch": 1}, ["rewind_epoch is 1", "leave rewind_epoch out"]),
    ({**SMALLEST["adaptive_sparsity"], "starget": 1}, ["starget is 1", "less than 1"]),
    ({**SMALLEST["adaptive_sparsity"], "mode": "budget"}, ["mode is 'budget'", "'one_sided'"]),
    ({**SMALLEST["adaptive_sparsity"], "lv": -1}, ["lv is -1", "greater than or equal to 0"]),
    ({**SMALLEST["adaptive_sparsity"], "initial_threshold": 5.5}, ["initial_threshold is 5.5", "equal to 5"]),
    ({**SMALLEST["adaptive_sparsity"], "variant": "original", "train": 3}, ["train is 3", "mapping"]),
    ({**SMALLEST["dense"], "snapshots": [0]}, ["snapshots has 0", "between 1 and 200"]),
    ({**L1, "stage_pr": None}, ["stage_pr and base_pr_model are both missing", "from one of them"]),
    ({**L1, "base_pr_model": "x"}, ["stage_pr and base_pr_model are both given", "from one of them"]),
    ({**L1, "stage_pr": 1.5}, ["stage_pr is 1.5", "from 0 to 1"]),
    ({**L1, "stage_pr": "{0:0.5}"}, ["stage_pr is '{0:0.5}'", "no braces"]),
    ({**L1, "stage_pr": "[0:0.5,]"}, ["stage_pr is '[0:0.5,]'", "first-last:ratio"]),
    ({**L1, "stage_pr": "[2-1:0.5]"}, ["2-1 ends before it begins"]),
    ({**L1, "stage_pr": "[7:0.5]"}, ["stage_pr has layer 7", "layers 0 to 3"]),
    ({**L1, "stage_pr": [0, 0.5, 0]}, ["one per stage", "not residual", "1-15:0.7"]),
    ({**L1, "stage_pr": "1:0.5", "model": "resnet20s"}, ["by layer", "residual", "each of its 5"]),
    ({**L1, "stage_pr": [0, 0.5], "model": "resnet20s"}, ["stage_pr has 2 ratios", "takes 5: stem, 3 stages"]),
    ({**L1, "stage_pr": [0, 0.5, 0, 0, 0, 0.1], "model": "resnet20s"}, ["stage_pr has 6 ratios", "takes 5"]),
    (
        {**L1, "stage_pr": [0.5] * 5, "model": "resnet20s"},
        ["cannot prune the first layer, whose filters enter a sum", "conv1 the ratio 0"],
    ),
    ({**L1, "stage_pr": "0-2:0.5", "pattern": "channel"}, ["channels are the image's", "conv1 the ratio 0"]),
    ({**L1, "skip_layers": [3.1]}, ["skip_layers has the number 3.1", "put it in quotes"]),
    ({**L1, "skip_layers": "[one]"}, ["skip_layers has 'one'", "stage.block.conv"]),
    ({**L1, "skip_layers": "[9]"}, ["skip_layers has '9'", "no layer has that name", "give 0 to 3"]),
    ({**L1, "stage_pr": None, "base_pr_model": "x", "skip_layers": "1"}, ["skip_layers is ['1']", "leave it out"]),
    ({**L1, "finetune": {"lr_steps": "0.1"}}, ["finetune.lr_steps is '0.1'", "epoch:rate pairs"]),
    *(
        ({**L1, "finetune": {"lr_steps": steps}}, ["finetune.lr_steps is ", "epoch:rate pairs"])
        for steps in ({0: 0.1, 1.7: 0.01}, {True: 0.1}, [[0, 0.1], [2.0, 0.01]], "0:0.1,1.5:0.01", {None: 0.1})
    ),
    ({**L1, "finetune": {"lr_steps": "0:0.1,0:0.2"}}, ["lr_steps is '0:0.1,0:0.2'", "each once"]),
    ({**L1, "finetune": {"lr_steps": "0:0.1", "lr": 0.5}}, ["lr is 0.5", "lr_steps sets every rate"]),
    ({**L1, "lr_ft": "0:0.1", "finetune": None}, ["lr_ft is '0:0.1'", "finetune is None"]),
    ({**L1, "pick_pruned": "least"}, ["pick_pruned is 'least'", "'min'"]),
    ({**SMALLEST["greg1"], "reg_granularity_prune": 1e-9}, ["reg_granularity_prune is 1e-09", "raise it"]),
    (
        {**SMALLEST["greg2"], "reg_granularity_pick": 1e-9},
        ["reg_granularity_pick is 1e-09", "reg_upper_limit_pick 0.01"],
    ),
    ({**SMALLEST["greg2"], "pick_pruned": "max"}, ["'pick_pruned'", "must be one of"]),
    ({**SMALLEST["greg1"], "prune": {"epochs": 3}}, ["prune: key is 'epochs'", "batch_size"]),
    (
        {**SMALLEST["oracle"], "stage_pr": 0.5},
        ["max_candidates is 10000", "more than 10^22", "of conv3 alone, 24 of 48 groups"],
    ),
    ({**BIP, 3: 4}, ["3 is not a known key"]),
    ({**SMALLEST["global_prune"], "p_prune": 1}, ["p_prune is 1", "less than 1"]),
    ({**SMALLEST["global_prune"], "p_bern": 1.5}, ["p_bern is 1.5", "less than or equal to 1"]),
    ({**SMALLEST["global_prune"], "pattern": "filter"}, ["pattern is 'filter'", "'filter_l1'"]),
    ({**SMALLEST["global_prune"], "pattern": "filter_l1", "keep_one": True}, ["keep_one is True", "leave it out"]),
    ({**SMALLEST["layer_prune"], "score": "magnitude"}, ["score is 'magnitude'", "'taylor'", "'l1'"]),
    ({**SMALLEST["gradient_prune"], "compile": True}, ["compile is True", "leave one of them out"]),
    (
        {**SMALLEST["gradient_prune"], "train": {"backward": {"linear": True, "pattern": "kernel"}}},
        ["train.backward", "linear is true", "use 'weight'"],
    ),
    ({**BIP, "prune": {"backward": {"p_prun": 0.5}}}, ["prune.backward", "'p_prun'", "did you mean 'p_prune'?"]),
    ({**SMALLEST["dwp"], "victim_seed": 0}, ["victim_seed is 0", "another network"]),
    ({**SMALLEST["dwp"], "victim_model": "tinny"}, ["victim_model is 'tinny'", "did you mean 'tiny'?"]),
    (
        {**SMALLEST["prune_iterative"], "finetune": {"warmup_epochs": 1}},
        ["finetune.warmup_epochs is 1", "give warmup_share"],
    ),
    *(
        ({**SMALLEST[method], recipe: {"lr_steps": "0:0.1"}}, [f"{recipe}.lr_steps is ", "give schedule and lr"])
        for method in ("prune_iterative", "regrow", "regrow_iterative", "single_layer")
        for recipe in ("finetune", "episode")
        if recipe in METHODS[method].Config.model_fields
    ),
    *(
        ({**SMALLEST[method], "episode": {"backward": {"p_prune": 0.5}}}, ["episode.backward", "set it in finetune"])
        for method in ("regrow", "regrow_iterative", "single_layer")
    ),
    *(
        ({**small, "source_net": "torchvision"}, ["source_net is 'torchvision'", "model is 'tiny'", "ResNet18"])
        for small in SMALLEST.values()
        if "source_net" in METHODS[small["method"]].Config.model_fields
    ),
    ({**SMALLEST["regrow_iterative"], "budget_max": 0.0005}, ["budget_max is 0.0005", "at least budget_min, 0.001"]),
    ({**SMALLEST["regrow"], "layers": []}, ["layers is empty", "leave it out"]),
    ({**SMALLEST["regrow"], "layers": ["conv_2"]}, ["layers is 'conv_2'", "did you mean 'conv2'?"]),
    ({**SMALLEST["regrow"], "initial": "zeros"}, ["initial is 'zeros'", "did you mean 'zero'?"]),
    ({**SMALLEST["regrow"], "prune": {"score": "lamb"}}, ["score is 'lamb'", "did you mean 'lamp'?"]),
    (
        {**SMALLEST["regrow"], "controller": {"episodes": 2, "episodes_in_flight": 3}},
        ["episodes_in_flight is 3", "at most the 2"],
    ),
    (WHAT, ["method is missing", METHOD_NAMES]),
    ([BIP], ["must be a mapping"]),
    (None, ["a trial is None", "must be a mapping"]),
    ("bip", ["a trial is 'bip'", "must be a mapping"]),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=[says[0] for _, says in WRONG])
def test_mistakes_are_one_line_with_value_and_rule(content: object, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(content)
    line = str(caught.value)
    assert "\n" not in line
    for part in says:
        assert part in line


def test_several_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UserError, match=r"seed is -1, .*; density is 2, "):
        parse({**BIP, "density": 2, "seed": -1})


def test_names_far_from_all_others_get_no_hint() -> None:
    assert unknown_name("model", "zzz", ["b", "a"]) == "model is 'zzz', but must be one of: a, b"
