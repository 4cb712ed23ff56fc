"""Data by name: image sets and event sets behind one door, and which networks fit them."""

from dataclasses import fields

from paperlib import errors
from paperlib.data import events, images
from paperlib.data.sets import ImageSet
from paperlib.data.simulation import Camera

CAPS = {"train", "validation", "test"}


def load(name: str, **arguments) -> ImageSet:
    """The image set of `images.load`, or the event set of `events.load`."""
    if events.is_known(name):
        return events.load(name, **arguments)
    if strange := set(arguments) - CAPS:
        refuse_unknown(name)
        raise errors.Refused(f"{name} takes no {', '.join(sorted(strange))}; it takes {', '.join(sorted(CAPS))}.")
    return images.load(name=name, **arguments)


def refuse_unknown(name: str) -> None:
    """Refuse a name that `load` does not know, without reading anything."""
    simulated = isinstance(name, str) and name.startswith(events.SACCADES)
    if simulated or not events.is_known(name):
        images.refuse_unknown(name.removeprefix(events.SACCADES) if simulated else name)


def arguments(name: str) -> tuple[set[str], set[str]]:
    """What `load` needs for that name, and what it may be given besides."""
    if not events.is_known(name):
        return {"name"}, CAPS
    return {"name", "T"}, CAPS | ({f.name for f in fields(Camera)} if name.startswith(events.SACCADES) else set())
