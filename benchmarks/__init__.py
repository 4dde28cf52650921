"""Measures Taskyard beside the bare interpreter, in the same run: ``make bench``."""
