"""The Triton form of the neuron without a GPU: in the interpreter, and compiled for cards that are not here.

The interpreter lets pass what the compiler refuses, and the compiler computes nothing, so both are needed.
"""

import itertools
import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
CAPABILITIES = (80, 90)  # of A100 and H100
INPUTS, SIZES = ("x", "grad", "grad_x", "spikes"), ("step", "out_step", "last", "out_last", "rows", "count")
NUMBERS = ("tau", "threshold", "fires", "gamma", "peak")
INTEGERS = ("cells", "height", "width", "channels")
LAYER = {"STEPS": 8, "CELLS": 4, "CHANNELS": 64}


def test_in_the_interpreter():
    tests = Path(__file__).with_name("interpreted_triton.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(tests)]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parent)
    assert done.returncode == 0 and "[100%]" in done.stdout, done.stdout[-4000:] + done.stderr[-1000:]


def built(kernel, number, capability, **constants):
    """The compiled kernel for inputs of type `number` ("fp32" or "bf16")."""
    import triton
    from triton.backends.compiler import GPUTarget

    from paperlib.networks import neuron_triton

    types = dict.fromkeys(constants, "constexpr") | dict.fromkeys(INPUTS, f"*{number}")
    types |= dict.fromkeys(SIZES, "i64") | dict.fromkeys(NUMBERS, "fp32") | dict.fromkeys(INTEGERS, "i32")
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=neuron_triton.EXACT)


@pytest.mark.parametrize("number", ["fp32", "bf16"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_it_compiles_and_multiplies_before_it_adds(capability, number):
    from paperlib.networks import neuron_triton as kernels

    forms = [
        (kernels._forward, LAYER | {"CONSTANT": False, "POOL": 2}),
        (kernels._forward, LAYER | {"CONSTANT": True, "POOL": 1}),
        (kernels._backward, LAYER | {"CONSTANT": False, "EVEN": False, "DETACH": False, "SUMMED": True, "POOL": 2}),
        (kernels._backward, LAYER | {"CONSTANT": True, "EVEN": True, "DETACH": True, "SUMMED": False, "POOL": 1}),
        (kernels._sums_of_values, {"ROWS": kernels.ROWS, "CHANNELS": 64}),
        (kernels._subtract, {"BLOCK": 1024}),
    ]
    for kernel, constants in forms:
        assembly = built(kernel, number, capability, **constants).asm
        assert len(assembly["cubin"]) > 1000
        assert "fma.rn.f32" not in assembly["ptx"]  # would round once where the other forms round twice


def test_a_kernel_with_an_unknown_name_does_not_compile(tmp_path):
    # so that the test above can fail
    file = tmp_path / "wrong.py"
    file.write_text("import triton\n\n@triton.jit\ndef wrong(x, channels):\n    triton.language.store(x, missing)\n")
    spec = spec_from_file_location("wrong", file)
    spec.loader.exec_module(module := module_from_spec(spec))
    with pytest.raises(Exception, match="missing"):
        built(module.wrong, "fp32", 90)


@pytest.mark.parametrize("steps", [4, 8, 32])
def test_what_a_thread_keeps_fits_into_its_registers(tmp_path, steps):
    # it has at most 255; what does not fit is written to memory of its own (STACK), which is slow
    from triton.backends import nvidia

    from paperlib.networks import neuron_triton as kernels

    for pool, constant in itertools.product((1, 2), (False, True)):
        cells, channels = kernels.tile_of(steps, 64, pool)
        layer = {"STEPS": steps, "CELLS": cells, "CHANNELS": channels, "CONSTANT": constant, "POOL": pool}
        compiled = built(kernels._backward, "fp32", 90, EVEN=False, DETACH=False, SUMMED=True, **layer)
        (tmp_path / "kernel.cubin").write_bytes(compiled.asm["cubin"])
        tool = Path(nvidia.__path__[0]) / "bin" / "cuobjdump"  # it comes with Triton
        usage = subprocess.check_output([tool, "-res-usage", tmp_path / "kernel.cubin"], text=True)
        assert "STACK:0 " in usage and "LOCAL:0 " in usage, usage
