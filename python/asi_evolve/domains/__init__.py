"""The built-in domains and benchmarks. Nothing here imports the engine."""
