"""Runs of notebooks: what they ask for, what that costs, how they are executed and published.

`Run` and `begin` are imported on first use: they need torch, which the process that executes a notebook does not.
"""

import importlib


def __getattr__(name: str):
    if name in ("Run", "begin"):
        return getattr(importlib.import_module("paperlib.runs.run"), name)
    raise AttributeError(f"module 'paperlib.runs' has no attribute {name!r}")
