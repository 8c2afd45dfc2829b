"""Regrowth: how a budget is divided among layers, which weights come back, and what values they start from.

These are the parts of bidirectional pruning and regrowth (https://arxiv.org/abs/2511.11675), one per file. "Released
code" is https://github.com/EnumaCaliber/Bidirection-Prune-Regrowth, commit b40cb9f. The methods in
``trials/methods/regrow`` combine the parts.
"""
