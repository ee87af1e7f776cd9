"""Measures the detector against the bare batch loop. `make bench`; docs/performance.md explains each figure."""
