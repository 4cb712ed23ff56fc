"""Profiles: files under params/, checked, and the experiments that they describe."""

from paperlib.profiles.files import NEEDED, family, load, names, of_imported
from paperlib.profiles.profile import Profile
