"""How fast, against what: each figure is a ratio against something in the same run, in turns (A B A B …)."""
