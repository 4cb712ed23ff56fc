"""Data by name: image sets and event sets behind one door, and which networks fit them."""

from dataclasses import fields

from paperlib import errors, events, images, networks
from paperlib.events.simulation import Camera
from paperlib.images import ImageSet

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


def refuse_misfit(data: dict, network: str, T: int) -> None:
    """Refuse a network that cannot take the data's samples.

    Events go to a network whose name starts with "events-" and that has a step a frame, images to any other.
    """
    name, of_events = data["name"], events.is_known(data["name"])
    if of_events != network.startswith(networks.EVENTS):
        raise errors.Refused(
            f"{name} holds {'events' if of_events else 'images'}, which the network {network} cannot take; "
            f"it needs one {'with' if of_events else 'without'} {networks.EVENTS} before its name."
        )
    if of_events and data["T"] != T:
        raise errors.Refused(f"The network's T is {T} and the data's {data['T']} frames a sample; they must be equal.")
