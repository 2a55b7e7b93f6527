"""How fast it is, each figure beside the simplest thing that could do the same: `python -m benchmarks`."""
