"""Arguments that several commands of ``python -m trials`` take."""

from __future__ import annotations

import argparse

import torch


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, by default as many as torch uses."""
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="number of CPU threads")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, but must be a whole number of at least 1")
    return int(text)
