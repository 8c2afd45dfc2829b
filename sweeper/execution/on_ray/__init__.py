"""All code that imports Ray. Ray's environment variables are set here, before any module of this package imports it."""

from __future__ import annotations

import logging
import os

from trials.system.account import name_account

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's snapshots are unused: the sweep's folder holds it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # PlanSearcher limits how many wait; 1 would start workers one by one
}
name_account()
for _name, _value in QUIET.items():  # read by Ray when it is imported
    os.environ.setdefault(_name, _value)
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # in a notebook, it misses ipywidgets at its import
