"""A small space with callbacks: TensorBoard's, one that notes what it is told, and one that fails."""

SPACE = """
plugins: [./track.py]
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 2}, finetune: {epochs: 1}}
grid: {density: [0.5, 0.2]}
callbacks:
  - tensorboard
  - {name: "track:Track", to: seen.jsonl}
  - track:Breaks
"""

PLUG_IN = """
import json
import re
from ray import tune

class Track(tune.Callback):
    def __init__(self, to):
        self.to = to

    def setup(self, **info):
        self.write(event="setup")

    def write(self, **what):
        with open(self.to, "a") as stream:
            stream.write(json.dumps(what) + "\\n")

    def on_trial_start(self, iteration, trials, trial, **info):
        self.write(event="start", trial=str(trial), density=trial.config["density"])

    def on_trial_result(self, iteration, trials, trial, result, **info):
        keys = ("stage", "epoch", "val_accuracy", "density", "training_iteration")
        self.write(event="result", trial=trial.trial_id, **{key: result.get(key) for key in keys})

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.write(event="complete", trial=trial.trial_id)

    def on_experiment_end(self, trials, **info):
        self.write(event="end")

class Breaks(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        raise ValueError("no such tracker")

class Plain:
    pass

def other(**options):
    return object()
"""
