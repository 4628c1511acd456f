"""Flags, YAML files and the checks of options before a run."""
