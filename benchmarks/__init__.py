"""Measure how fast Yardmaster is, beside its peers: `python -m benchmarks`, or `make bench`."""
