"""``python -m trials convert_pickle``: a file with pickled objects -> one of tensors, which ``source_net`` reads."""

from __future__ import annotations

import argparse
import sys

from trials.commands.arguments import at_least_1, command_parser, real_number, writing
from trials.errors import UserError, exact, listed, unknown_name
from trials.models import MODELS
from trials.networks.converting import as_it_stands, for_model, take_out
from trials.storage import files
from trials.system.user_path import path_argument

RISK = (
    "is to be unpickled, and a pickle is a program of whoever made it. It is read in a process of its own, with a "
    "passive stand-in for every class and function that it names, so that nothing of it should run; a fault of Python "
    "or torch could still let it act as you. If you trust where the file comes from, give --i-trust-this-file"
)


def convert_command(arguments: list[str]) -> int:
    """Run ``convert_pickle FILE --to FILE --i-trust-this-file``; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not options.i_trust_this_file:
        raise UserError(f"FILE is {str(options.file)!r}, which {RISK}")
    if options.model is not None and options.model not in MODELS:
        raise UserError(unknown_name("--model", options.model, MODELS))
    if not 0 < options.seconds < 1e6:
        raise UserError(f"--seconds is {exact(options.seconds)}, but must be positive, and less than 1,000,000")
    taken = take_out(options.file, options.seconds)
    content, said = as_it_stands(taken), True
    if options.model is not None:
        content, said = for_model(taken, options.model, options.image_size)
    with writing(options.to):
        files.save(options.to, content)
    form = (
        "a compact network"
        if "kept" in content
        else "a state dict with masks"
        if "masks" in content
        else "a state dict"
    )
    print(f"{options.to} holds {form} of {len(content['state_dict'])} tensors: use it as source_net")
    if not said:
        print("note: the file does not say which rows are left, so they are numbered from 0", file=sys.stderr)
    if taken.objects:
        print(f"note: what had a stand-in and is left out: {listed(taken.objects)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "convert_pickle",
        description="Take the tensors out of a file with pickled objects, as a whole module that torch.save wrote.",
    )
    parser.add_argument("file", type=path_argument("FILE"), help="the file with pickled objects")
    parser.add_argument("--to", type=path_argument("--to"), required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--i-trust-this-file", action="store_true", help="you know where the file comes from")
    parser.add_argument("--model", help="the model that it is of; needed for a network that is smaller than its model")
    parser.add_argument("--image-size", type=at_least_1, help="with --model: side of its images; default 32 or 224")
    parser.add_argument("--seconds", type=real_number, default=600.0, help="give up after so long; default: 600")
    return parser
