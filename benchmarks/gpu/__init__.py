"""A check of the project on a GPU, which takes six minutes and writes JSON and tables: ``python -m benchmarks.gpu``."""
