"""Regrowth: how much of a budget each layer gets back, which weights, and what values they start from.

The parts of bidirectional pruning and regrowth (https://arxiv.org/abs/2511.11675), one question and one file each;
``trials/methods/regrow/regrow.py`` puts them together.
"""
