"""The script of the benchmarks with a package that takes long to import."""

import sys

import numpy  # noqa: F401 - its import is what is measured

print("hello", sys.argv[1])
