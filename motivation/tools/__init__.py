"""The commands of ``python -m motivation``."""
