"""Peak memory of an SR training step, in a process that does nothing else.

    python benchmarks/memory.py NETWORK VARIANT T BATCH

prints {"peak": ..., "rest": ...} in MB (10⁶ bytes), both above the memory of the process after its imports.  `peak` is
the largest resident memory while the network is built and two steps are made, the second with a warm allocator:
weights, gradients, momentum, activations, and what the libraries load on first use.  `rest` is what stays between
steps: the same without activations.
"""

import ctypes
import json
import re
import sys
from pathlib import Path

import torch
from steps import CASES, Case, Subject


def resident(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the largest so far) of this process in MB.  It needs Linux."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s*(\d+) kB", status)[1]) * 1024 / 1e6


def measure(case: Case, variant: str) -> dict[str, float]:
    """Peak and rest in MB."""
    torch.optim.SGD([torch.zeros(1)])  # the first optimiser of a process imports 160 MB of torch
    imported = resident("VmRSS")
    subject = Subject(case, variant)
    for _ in range(2):
        subject.sr_step()
    peak = resident("VmHWM")
    ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back to the system
    return {"peak": peak - imported, "rest": resident("VmRSS") - imported}


if __name__ == "__main__":
    network, variant, T, batch = sys.argv[1:]
    print(json.dumps(measure(CASES[network]._replace(T=int(T), batch=int(batch)), variant)))
