"""A run's folder: files, checkpoints, provenance, shipped weights."""
