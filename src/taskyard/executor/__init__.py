"""The Executor Node: dials the manager, runs attempts in its slots, reports their outcomes."""
