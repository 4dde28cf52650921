"""Prints N numbers, one every half second: `hello.py 6`."""

import sys
import time

count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
for i in range(count):
    print(i)
    time.sleep(0.5)
