"""The domain: what a task is and how its state changes. Pure: no I/O, no clock, no asynchronous code."""
