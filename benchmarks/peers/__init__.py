"""Runs the same script through other systems that run Python tasks: ``make bench-peers``.

Each is a small module, and runs in an environment of its own with two slots, warm. ``__main__`` installs and starts them one
after the other; ``driver`` is the process in which one of them is measured.
"""
