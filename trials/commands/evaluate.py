"""``python -m trials evaluate`` and ``recovered``: accuracy of trials' stored networks, by class and by image."""

from __future__ import annotations

import json
from typing import Any

from trials.analysis import class_accuracy, recovered, sparsity_accuracy
from trials.commands.arguments import add_data_dir, at_least_1, command_parser, note_unfinished
from trials.commands.profile import profile_text
from trials.storage.sweep_path import trial_place

SPLITS = ("val", "test")


def evaluate_trials_command(arguments: list[str]) -> int:
    """Run ``evaluate TRIAL [TRIAL...]``; returns the exit code."""
    parser = command_parser("evaluate", description="Sparsity, loss and accuracy of trials' stored networks.")
    parser.add_argument("trials", type=trial_place, nargs="+", metavar="TRIAL", help="a trial's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument("--by-class", action="store_true", help="top-1 and top-5 accuracy of every class instead")
    add_data_dir(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the rows as JSON; by class, with the confusion matrix"
    )
    options = parser.parse_args(arguments)
    code = note_unfinished(options.trials)
    if options.by_class:
        rows = [row for trial in options.trials for row in class_rows(trial, options.split, options.data_dir)]
    else:
        rows = sparsity_accuracy(options.trials, options.split, options.data_dir)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print(profile_text([{key: value for key, value in row.items() if key != "predicted"} for row in rows]))
    return code


def class_rows(trial: Any, split: str, data_dir: str | None) -> list[dict[str, Any]]:
    """Return a row per class: trial, class, images, top-1 and top-5 accuracy, and how many were predicted as which.

    Accuracies are None for a class without images.
    """
    found = class_accuracy(trial, split, data_dir=data_dir)
    counts = found.confusion.sum(1).tolist()
    accuracies = zip(counts, found.top1_accuracy.tolist(), found.top5_accuracy.tolist(), strict=True)
    return [
        {
            "trial": trial.name,
            "class": number,
            "images": images,
            "top1_accuracy": top1 if images else None,
            "top5_accuracy": top5 if images else None,
            "predicted": found.confusion[number].tolist(),
        }
        for number, (images, top1, top5) in enumerate(accuracies)
    ]


def recovered_command(arguments: list[str]) -> int:
    """Run ``recovered BEFORE AFTER``; returns the exit code."""
    parser = command_parser(
        "recovered",
        description="Test images that one trial's network gets wrong and another's right, by class.",
    )
    parser.add_argument("before", type=trial_place, help="a trial's folder")
    parser.add_argument("after", type=trial_place, help="another trial's folder, on the same data")
    parser.add_argument(
        "--most", type=at_least_1, default=5, metavar="N", help="images of a class; default: %(default)s"
    )
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="print positions among the test images by class, as JSON")
    options = parser.parse_args(arguments)
    code = note_unfinished([options.before, options.after])
    found = dict(sorted(recovered(options.before, options.after, options.most, options.data_dir).items()))
    if options.json:
        print(json.dumps(found))
    for number, positions in found.items() if not options.json else ():
        print(f"class {number}: test images {', '.join(map(str, positions))}")
    return code
