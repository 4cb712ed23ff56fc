"""Profiles: files under params/, checked, and the experiments that they describe.

What needs torch is imported on first use, so that `parameters` and `reading` can be imported without it.
"""

import importlib

from paperlib.profiles.reading import names

_MODULES = {"Profile": "profile"} | dict.fromkeys(("NEEDED", "family", "load", "of_imported"), "files")


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f"paperlib.profiles.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'paperlib.profiles' has no attribute {name!r}")
