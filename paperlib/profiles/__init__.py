"""Profiles: params/<name>.yml → checked parameters → experiments.  The plan of a profile."""

from paperlib.profiles.files import NEEDED, family, load, names, of_imported
from paperlib.profiles.profile import VARIED, Profile, Setting

__all__ = ["NEEDED", "VARIED", "Profile", "Setting", "family", "load", "names", "of_imported"]
