"""The client of a Taskyard: asynchronous, with a thin synchronous wrapper."""
