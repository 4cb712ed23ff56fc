"""Frames that are kept: made once, whole or not at all, under names that hold all that decides them."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from paperlib import errors, paths, records


def arrays(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in `path`, an .npz; what `make` gives is put there where it is missing.

    Refuses a damaged file by its name.  An array is read whole, or its checksum would not be compared.
    """
    if not path.exists():
        packed = io.BytesIO()
        np.savez_compressed(packed, **make())
        records.write_atomically(path, packed.getvalue())
    try:
        with zipfile.ZipFile(path) as archive:
            whole = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        return {name: np.load(io.BytesIO(array), allow_pickle=False) for name, array in whole.items()}
    except Exception as problem:  # readers raise anything on damaged bytes
        raise errors.Refused(
            f"{paths.shown(path)} is damaged ({type(problem).__name__}); delete it, and it is made again."
        ) from None


def code(*modules: ModuleType) -> str:
    """Names the modules' own lines, so that frames of older ones are not taken for theirs."""
    return records.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules))
