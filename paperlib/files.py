"""Bytes on disk and in hashes: atomic writes, strict JSON, checksums."""

import errno
import hashlib
import json
import math
import os
import re
import uuid
from pathlib import Path

import numpy as np

from paperlib import paths
from paperlib.errors import Refused


def write_atomically(path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all; parents are made.  An OSError is Refused, the old file kept."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # same folder: os.replace is then atomic
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        remedy = f"free {len(data) // 1000 + 1:,} kB" if error.errno == errno.ENOSPC else "see to that"
        raise Refused(
            f"Could not write {paths.shown(path)}: {reason(error)}. "
            f"Nothing half-written was left; {remedy} and start again."
        ) from error


def sha256(data: bytes) -> str:
    """Checksum of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hashed(content: object) -> str:
    """A name for `content`: the start of its canonical JSON's SHA-256."""
    return sha256(json.dumps(content, sort_keys=True).encode())[:16]


def plain(value):
    """`value` in JSON's types alone: arrays and tuples as lists, what is not finite as None."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    raise Refused(f"A record cannot hold {value!r} of type {type(value).__name__}; it holds text, numbers and lists.")


def as_json(content: object) -> str:
    """Strict JSON, indented, innermost lists on one line (inside a JSON string no raw line break can match)."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n[^\[\]{}]*\n *\]", lambda found: re.sub(r"\n *", " ", found[0]), text) + "\n"


def reason(error: OSError) -> str:
    """The cause of an OSError in the words of the system."""
    return (error.strerror or str(error)).lower()
