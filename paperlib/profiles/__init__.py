"""Profiles: params/<name>.yml → checked parameters → experiments.  The plan of a profile."""

from paperlib.profiles.files import NEEDED, family, load, names, of_imported
from paperlib.profiles.profile import Profile
from paperlib.profiles.selections import VARIED, Setting

__all__ = ["NEEDED", "VARIED", "Profile", "Setting", "family", "load", "names", "of_imported"]
