"""The script of the benchmarks: one line, and no sleep."""

import sys

print("hello", sys.argv[1])
