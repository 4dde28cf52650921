"""`python -m taskyard` is the command `taskyard`."""

from taskyard.cli.main import main

if __name__ == "__main__":
    main()
