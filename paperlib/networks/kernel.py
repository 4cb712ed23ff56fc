"""The neuron in C (`neuron.c`), compiled in a fraction of a second by the C compiler of the machine.

The environment variable CC names the compiler, with options if need be; the default is "cc".  Without a compiler, or
where it fails, `fused` computes the same bits with torch operations, more slowly.
"""

import ctypes
import os
import shlex
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("neuron.c")
NUMBERS = {torch.float32: "-DREAL=float", torch.float64: "-DREAL=double", torch.bfloat16: "-DBFLOAT16"}
FLAGS = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-shared", "-fPIC"]
EXTRA = (["-march=native", "-fopenmp"], ["-march=native"], [])  # tried in this order; not every compiler has them


class Layer(ctypes.Structure):
    """The struct `Layer` of neuron.c, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "samples", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("constant", "even", "pool", "detach")),
        *((name, ctypes.c_double) for name in ("tau", "threshold", "fires", "gamma")),
    ]


class Norm(ctypes.Structure):
    """The struct `Norm` of neuron.c, field by field."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("scale", "shift", "mean", "inverse")), ("batch", ctypes.c_int64)]


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled neuron for tensors of `dtype`, one of `NUMBERS`; without a compiler None, after one warning."""
    with tempfile.TemporaryDirectory() as folder:  # not kept: another machine may lack the instructions of this one
        target = Path(folder) / "neuron.so"
        for extra in EXTRA:
            command = [*shlex.split(os.environ.get("CC") or "cc"), *FLAGS, *extra, NUMBERS[dtype], str(SOURCE)]
            try:
                subprocess.run([*command, "-o", str(target)], check=True, capture_output=True, text=True, timeout=60)
                return ctypes.CDLL(str(target))
            except (OSError, subprocess.SubprocessError) as problem:
                reason = " ".join((getattr(problem, "stderr", "") or str(problem)).split())
    warnings.warn(f"The neuron was not compiled; torch computes it, more slowly: {reason[:300]}", stacklevel=2)
    return None


def run(name: str, layer: Layer, norm: Norm, *tensors: Tensor | None) -> None:
    """Call "forward", "backward" or "statistics" of neuron.c with contiguous tensors and torch's threads.

    Raises MemoryError where C has no memory for one row of membranes.
    """
    function = getattr(library(tensors[0].dtype), name)
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    if function(ctypes.byref(layer), ctypes.byref(norm), *pointers, ctypes.c_int(torch.get_num_threads())):
        raise MemoryError("The compiled neuron has no memory for one row of membranes.")
