"""What the project reaches, measured beside the raw ceiling in the same run: `python -m benchmarks`."""
