"""Data sets of both kinds, images and events, by name."""

from dataclasses import fields

from paperlib import errors
from paperlib.data import events, images, sets
from paperlib.data.sets import PARTS, ImageSet
from paperlib.data.simulation import Camera

CAPS = set(PARTS)  # arguments that cap the number of samples


def load(name: str, **arguments) -> ImageSet:
    """The set `name`: an image set by `images.load`, or an event set by `events.load`."""
    if events.is_known(name):
        return events.load(name, **arguments)
    if unknown := set(arguments) - CAPS:
        refuse_unknown(name)
        raise errors.Refused(f"{name} takes no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(CAPS))}.")
    return images.load(name=name, **arguments)


def available(data: dict, split: str) -> int | None:
    """The number of samples in a split of the set that `load(**data)` gives; None where only a download would tell.

    Of simulated recordings the images are counted, and none is recorded.
    """
    if split in data:
        return data[split]
    name = data["name"].removeprefix(events.SACCADES)
    if name in sets.OUTLINES or name in events.KINDS:
        return None
    caps = {part: data[part] for part in PARTS if part in data}
    return len(getattr(images.load(name=name, **caps), split))


def refuse_unknown(name: str) -> None:
    """Refuse a name that `load` does not know.  Nothing is read."""
    if isinstance(name, str) and name.startswith(events.SACCADES):
        images.refuse_unknown(name.removeprefix(events.SACCADES))
    elif not events.is_known(name):
        images.refuse_unknown(name)


def arguments(name: str) -> tuple[set[str], set[str]]:
    """The names of the arguments that `load` needs for the set `name`, and of those that are optional."""
    if not events.is_known(name):
        return {"name"}, CAPS
    camera = {field.name for field in fields(Camera)} if name.startswith(events.SACCADES) else set()
    return {"name", "T"}, CAPS | camera
