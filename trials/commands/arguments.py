"""Arguments that several commands of ``python -m trials`` take."""

from __future__ import annotations

import argparse

import torch


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, by default as many as torch uses."""
    parser.add_argument("--threads", type=at_least_1, default=torch.get_num_threads(), help="number of CPU threads")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-dir``, by default the folder that the trial's config names."""
    parser.add_argument("--data-dir", metavar="DIR", help="where the trial's data lie now; default: as its config says")


def at_least_1(text: str) -> int:
    """The whole number that an argument gives; argparse names the argument if it is none of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, but must be a whole number of at least 1")
    return int(text)
