"""The sections of the GPU check: each function measures into the results of its section. See plan.py."""
