"""The arithmetic of a process: the instructions that its libraries may use, and the number of their threads.

torch, oneDNN, MKL, numpy and OpenBLAS choose instructions by the processor, and sums in another order round in another
way.  Training is chaotic, so one rounding makes another network.  A process therefore settles on one arithmetic before
it imports these libraries:

portable          AVX2 and one thread: the same bits on every x86-64 processor with AVX2
portable-avx512   AVX-512 and one thread: faster on wide networks, for processors with AVX-512 alone
native            what the machine does best, a GPU included; the numbers are those of the machine

torch takes the square root and the arc tangent of a tensor from MKL, whose last bit differs between makers of
processors whatever is set.  The library therefore writes a root as `x.rsqrt().reciprocal()`, which torch computes.

The settings are environment variables, so that processes that are started later have them as well.  This module imports
the standard library alone.
"""

import os
import platform
import sys
import warnings
from functools import cache
from pathlib import Path

from paperlib import errors

VARIABLE = "COMPANION_ARITHMETIC"  # the environment variable that chooses one where no profile does
PORTABLE, AVX512, NATIVE = NAMES = ("portable", "portable-avx512", "native")
LIBRARIES = ("numpy", "torch")  # whoever imports these has settled

_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products; its wider settings hold on Intel's processors alone
    "OPENBLAS_CORETYPE": "Haswell",  # matrix products of numpy and scipy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # numpy's own loops
}
_AVX512 = _AVX2 | {
    "ATEN_CPU_CAPABILITY": "avx512",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    "OPENBLAS_CORETYPE": "SkylakeX",
    "NPY_DISABLE_CPU_FEATURES": "AVX512_ICL AVX512_SPR",
}
_before = {name: os.environ.get(name) for name in _AVX2 | _THREADS}  # what `native` restores


def settle(name: str | None = None) -> None:
    """Settle this process on the arithmetic `name`; by default on that of `VARIABLE`, which defaults to "portable".

    Where numpy or torch was imported before with other settings, it is too late: a warning says so, and `current` stays
    what it was.  Refuses an unknown name, and "portable-avx512" on a processor without AVX-512.
    """
    name = os.environ.get(VARIABLE, PORTABLE) if name is None else name
    errors.one_of("arithmetic", name, NAMES)
    refuse_lacking(name)
    if name == current():
        return
    if loaded := [library for library in LIBRARIES if library in sys.modules]:
        warnings.warn(
            f"This process computes with {current()} arithmetic and not with {name}, because {' and '.join(loaded)} "
            f"had been imported before; import paperlib first, or set {VARIABLE}={name} before Python starts.",
            stacklevel=3,
        )
        return
    for variable, value in environment(name).items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


def current() -> str:
    """The arithmetic of this process, one of `NAMES`."""
    chosen = os.environ.get(VARIABLE, NATIVE)
    stands = chosen in NAMES and all(os.environ.get(key) == value for key, value in settings(chosen).items())
    return chosen if stands else NATIVE


def environment(name: str) -> dict[str, str | None]:
    """The variables of a process with an arithmetic; the others are as before this one settled (None: not set)."""
    return _before | settings(name)


def refuse_lacking(name: str) -> None:
    """Refuse "portable-avx512" on a processor without AVX-512."""
    if name == AVX512 and not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= _instructions():
        raise errors.Refused(
            f"The arithmetic {AVX512} needs a processor with AVX-512; this one, {processor()}, has none."
        )


def settings(name: str) -> dict[str, str]:
    """The environment variables of an arithmetic.  Only x86-64 has a choice of instructions here."""
    instructions = {PORTABLE: _AVX2, AVX512: _AVX512, NATIVE: {}}[name]
    if platform.machine() not in ("x86_64", "AMD64"):
        instructions = {}
    return {VARIABLE: name} | instructions | ({} if name == NATIVE else _THREADS)


def require(name: str, what: str) -> None:
    """Refuse where this process has another arithmetic than `name`; `what` is the subject of the sentence."""
    if name != current():
        raise errors.Refused(
            f"{what} takes {name} arithmetic and this process computes with {current()}. "
            f"Set {VARIABLE}={name} before Python starts."
        )


def is_exact() -> bool:
    """Whether `portable` gives the committed bits here: on Linux, x86-64 with AVX2.  Else it is the nearest."""
    return "avx2" in _instructions()


def processor() -> str:
    """The name of the processor, as the system tells it."""
    for key in ("model name", "Model"):
        if key in _cpuinfo():
            return _cpuinfo()[key]
    return platform.processor() or platform.machine()


@cache
def _cpuinfo() -> dict[str, str]:
    """The entries of /proc/cpuinfo of the first processor; {} where there is no such file."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _instructions() -> set[str]:
    """The sets of instructions of this processor as Linux on x86-64 lists them; none elsewhere."""
    return set(_cpuinfo().get("flags", "").split())
