"""Benchmarks. Most compare two functions A and B in one run, alternating (A B A B …), and report the ratio."""
