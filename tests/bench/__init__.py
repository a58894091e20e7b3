"""What Passport costs, measured: ``python -m tests.bench``; docs/benchmarks.md explains each figure."""
