"""Whether emulated processors compute the same bits as this one: `make emulate`.

qemu-user emulates processors of two makers, each with its own instructions and caches.  The small computations of
`digests.py` run on this processor and on each of them.  There the neuron is computed by torch (CC=/bin/false), because
the compiler of this machine would emit the instructions of this machine.  Exit status 1 where a digest differs.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from paperlib import arithmetic

QEMU = "qemu-x86_64"
PROCESSORS = ("EPYC-Rome", "Haswell")  # names of qemu
SCRIPT = Path(__file__).with_name("digests.py")


def main() -> int:
    """Print a table of digests."""
    if not arithmetic.is_exact():
        print(
            f"This processor, {arithmetic.processor()}, has no AVX2: portable arithmetic is only the nearest there is."
        )
        return 0
    if not shutil.which(QEMU):
        print(
            f"{QEMU} is not on the PATH, so nothing was emulated; Debian and Ubuntu have it in the package qemu-user."
        )
        return 0
    here, differs = digests([]), False
    print(f"{arithmetic.processor()}, portable arithmetic:")
    print(*(f"  {name}: {digest}" for name, digest in here.items()), sep="\n")
    for name in PROCESSORS:
        started = time.perf_counter()
        there = digests([QEMU, "-cpu", name])
        differing = [key for key in here if here[key] != there[key]]
        differs |= bool(differing)
        outcome = f"differs in {', '.join(differing)}" if differing else f"{len(here)} of {len(here)} digests equal"
        print(f"{name}, emulated: {outcome} ({time.perf_counter() - started:.0f} s).", flush=True)
    return 1 if differs else 0


def digests(emulator: list[str]) -> dict[str, str]:
    """The digests as computed under `emulator`, a command that takes another one; [] is this processor."""
    variables = {arithmetic.VARIABLE: arithmetic.PORTABLE} | ({"CC": "/bin/false"} if emulator else {})
    command = [*emulator, sys.executable, "-W", "ignore", str(SCRIPT)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)["digests"]


if __name__ == "__main__":
    sys.exit(main())
