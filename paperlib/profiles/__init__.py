"""Profiles: params/<name>.yml → checked parameters → experiments."""

from paperlib.profiles.files import NEEDED, family, load, names, of_imported
from paperlib.profiles.profile import Profile
