"""The neuron on a GPU: BatchNorm, the neuron and the pool over all time steps in one kernel, written in Triton.

The twin of `neuron.c`, with the same operations in the same order for each neuron: bfloat16 is loaded to float32, and
no multiplication is fused with an addition.  Sums over samples and pixels have an order of their own, so the gradients
of BatchNorm agree with the other implementations within rounding.  Nothing but x is needed for backward: the membranes
of a tile are computed again, in registers.

Importing this module needs Triton.  The environment variable TRITON_INTERPRET=1, set before, runs it on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = (torch.float32, torch.bfloat16)
MOST_STEPS = 32  # loops over steps are unrolled, and a thread keeps the membranes of all steps
ROWS = 128  # of x, in a program of `_sums_of_values`
# Otherwise a·b + c would be rounded once, where the other implementations round twice, and spikes would differ.
EXACT = {"enable_fp_fusion": False}


# Where a program works. ----------------------------------------------------------------------------------------------


@triton.jit
def _tile(cells, height, width, channels, POOL: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets into a step of x, (CELLS, POOL², CHANNELS), and of the output, (CELLS, 1, CHANNELS), masks, channels.

    `cells` is the number of samples times pixels of the output.
    """
    rows, columns = height // POOL, width // POOL  # of the output
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)[:, None, None]
    part = tl.arange(0, POOL * POOL)[None, :, None]
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    sample, row, column = cell // (rows * columns), cell // columns % rows, cell % columns
    pixel = (sample * height + row * POOL + part // POOL) * width + column * POOL + part % POOL
    inside = (cell < cells) & (c < channels)
    return pixel * channels + c, cell * channels + c, inside & (part >= 0), inside, c


@triton.jit
def _load(pointers, mask):
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(pointers, values, mask):
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def _sum(values):
    """The sum over the cells of a tile, (1, 1, CHANNELS)."""
    return tl.sum(tl.sum(values, axis=1, keep_dims=True), axis=0, keep_dims=True)


# Kernels.  x is (STEPS, samples, height, width, channels), or one step with CONSTANT; `step` and `out_step` are the
# numbers of values in a step of x and of the output. ----------------------------------------------------------------


@triton.jit
def _forward(
    x, spikes, scale, shift, step, out_step, cells, height, width, channels, tau, fires,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, POOL: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Spikes, or with POOL = 2 their means over 2×2 cells."""
    offsets, out_offsets, mask, out_mask, c = _tile(cells, height, width, channels, POOL, CELLS, CHANNELS)
    scale, shift = _load(scale + c, c < channels), _load(shift + c, c < channels)
    x += offsets
    spikes += out_offsets
    current = _load(x, mask) * scale + shift
    v = tl.zeros_like(current)
    for t in tl.static_range(STEPS):
        if t > 0 and not CONSTANT:
            x += step
            current = _load(x, mask) * scale + shift
        m = v * tau + current
        spike = m >= fires
        v = tl.where(spike, 0.0, m)
        _store(spikes, tl.sum(spike.to(tl.float32), axis=1, keep_dims=True) / (POOL * POOL), out_mask)
        spikes += out_step


@triton.jit
def _backward(
    x, grad, grad_x, sums, scale, shift, mean, step, out_step, last, out_last, cells, height, width, channels,
    tau, threshold, fires, gamma, peak,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, EVEN: tl.constexpr, DETACH: tl.constexpr, SUMMED: tl.constexpr,
    POOL: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """scale times the gradient of the current, from `grad`, which has one step with EVEN.

    With SUMMED, the sums over the tile of that gradient and of its product with x - mean go to `sums`, (programs, 2,
    channels).  `last` and `out_last` are the offsets of the last step of x and of `grad`.
    """
    offsets, out_offsets, mask, out_mask, c = _tile(cells, height, width, channels, POOL, CELLS, CHANNELS)
    scale, shift = _load(scale + c, c < channels), _load(shift + c, c < channels)
    x += offsets
    current = _load(x, mask) * scale + shift
    v = tl.zeros_like(current)
    membranes = ()
    for t in tl.static_range(STEPS):
        if t > 0 and not CONSTANT:
            x += step
            current = _load(x, mask) * scale + shift
        m = v * tau + current
        v = tl.where(m >= fires, 0.0, m)
        membranes += (m,)
    grad += out_last + out_offsets
    grad_x += last + offsets
    grad_v = tl.zeros_like(current)
    total = tl.zeros_like(current)
    dot = tl.zeros_like(current)
    mean = _load(mean + c, c < channels)
    grad_s = _load(grad, out_mask) / (POOL * POOL)
    for t in tl.static_range(STEPS - 1, -1, -1):
        m = membranes[t]
        slope = tl.maximum(gamma - tl.abs(m - threshold), 0.0) * peak
        if DETACH:
            gradient = tl.where(m >= fires, 0.0, grad_v) + slope * grad_s
        else:
            gradient = tl.where(m >= fires, 0.0, grad_v) + slope * (grad_s - grad_v * m)
        grad_v = gradient * tau
        total += gradient
        if not CONSTANT:
            _store(grad_x, gradient * scale, mask)
            if SUMMED:
                dot += gradient * (_load(x, mask) - mean)
            x -= step
            grad_x -= step
        if t > 0 and not EVEN:
            grad -= out_step
            grad_s = _load(grad, out_mask) / (POOL * POOL)
    if CONSTANT:  # the sum over time is the gradient of x
        _store(grad_x, total * scale, mask)
        dot = total * (_load(x, mask) - mean)
    if SUMMED:
        sums += tl.program_id(0).to(tl.int64) * 2 * channels + c
        tl.store(sums, _sum(total), mask=c < channels)
        tl.store(sums + channels, _sum(dot), mask=c < channels)


@triton.jit
def _sums_of_values(x, sums, first, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """The sums over ROWS rows of x, (rows, channels), of x - first and of its square, to `sums`, as in `_backward`."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    mask = (row < rows) & (c < channels)
    centred = tl.where(mask, _load(x + row * channels + c, mask) - _load(first + c, c < channels), 0.0)
    sums += tl.program_id(0).to(tl.int64) * 2 * channels + c
    tl.store(sums, tl.sum(centred, axis=0, keep_dims=True), mask=c < channels)
    tl.store(sums + channels, tl.sum(centred * centred, axis=0, keep_dims=True), mask=c < channels)


@triton.jit
def _subtract(x, grad_x, level, tilt, mean, count, channels, BLOCK: tl.constexpr):
    """From the gradient of x, in place, level + tilt·(x - mean): what goes through mean and variance of the batch."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask, c = place < count, place % channels
    centred = _load(x + place, mask) - tl.load(mean + c)
    _store(grad_x + place, _load(grad_x + place, mask) - (tl.load(level + c) + tl.load(tilt + c) * centred), mask)


# What `fused` calls.  x is (T or 1, B, H, W, C) and contiguous. ------------------------------------------------------


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,) float32 each."""
    channels, rows = x.shape[-1], x[..., 0].numel()
    first = x.view(-1, channels)[0].float()  # subtracted, so that no digits are lost where the mean is large
    block = min(_power(channels), 64)
    sums = first.new_empty(_blocks(rows, ROWS), 2, channels)
    _sums_of_values[len(sums), _blocks(channels, block)](x, sums, first, rows, channels, ROWS, block, **EXACT)
    off, square = sums.sum(0, dtype=torch.float64) / rows
    return (first + off).float(), (square - off * off).clamp_min(0).float()


def spikes(x: Tensor, norm, cell, pool: bool) -> Tensor:
    """Spikes (T, B, H, W, C), or with `pool` their means over 2×2 cells; `norm` and `cell` as in `fused`."""
    _, samples, height, width, channels = x.shape
    size = (height // 2, width // 2) if pool else (height, width)
    result = x.new_empty(cell.steps, samples, *size, channels)
    grid, layer, blocks = _launch(x, cell, pool)
    if result.numel():
        _forward[grid](x, result, norm.scale, norm.shift, *layer, cell.tau, cell.fires, *blocks, **EXACT)
    return result


def gradients(
    x: Tensor, norm, grad: Tensor, cell, pool: bool, summed: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of x and, with `summed`, of BatchNorm's weight and bias; the backward rule is a triangle.

    `grad` is that of the (pooled) spikes, with one step where it is the same at all steps.
    """
    cells_are_dropped = pool and (x.shape[2] % 2 or x.shape[3] % 2)  # by the pool, so no tile holds them
    grad_x = torch.zeros_like(x) if cells_are_dropped else torch.empty_like(x)
    (programs, blocks), (step, out_step, *rest), (steps, constant, *sizes) = _launch(x, cell, pool)
    even = len(grad) != cell.steps
    last, out_last = (len(x) - 1) * step, (len(grad) - 1) * out_step
    sums = norm.scale.new_empty(programs if summed else 0, 2, x.shape[-1])
    constants = cell.tau, cell.threshold, cell.fires, cell.half_width, 1 / cell.half_width**2
    _backward[programs, blocks](
        x, grad, grad_x, sums, norm.scale, norm.shift, norm.mean, step, out_step, last, out_last, *rest, *constants,
        steps, constant, even, cell.detach_reset, summed, *sizes, **EXACT,
    )  # fmt: skip
    if not summed:
        return grad_x, None, None
    level, tilt = sums.sum(0, dtype=torch.float64)
    inverse, scale = norm.inverse.double(), norm.scale.double()
    grads = (tilt * inverse).float(), level.float()
    if norm.batch:  # mean and variance depend on every x
        count, channels = x.numel(), x.shape[-1]
        level, tilt = (scale * level / (count // channels)), (scale * tilt * inverse**2 / (count // channels))
        arguments = level.float(), tilt.float(), norm.mean, count, channels
        _subtract[(_blocks(count, 1024),)](x, grad_x, *arguments, 1024, **EXACT)
    return grad_x, *grads


def _launch(x: Tensor, cell, pool: bool) -> tuple[tuple[int, int], tuple[int, ...], tuple]:
    """The grid, the numbers that describe the layer, and the constants of a kernel."""
    steps, samples, height, width, channels = x.shape
    side = 2 if pool else 1
    cells = samples * (height // side) * (width // side)
    tile, block = tile_of(cell.steps, channels, side)
    grid = _blocks(cells, tile), _blocks(channels, block)
    layer = x[0].numel(), cells * channels, cells, height, width, channels
    return grid, layer, (cell.steps, steps != cell.steps, side, tile, block)


def tile_of(steps: int, channels: int, side: int) -> tuple[int, int]:
    """Cells of the output and channels of a tile; `side` is 2 with a pool, else 1."""
    block = min(_power(channels), 64)  # its lines in memory are then long enough
    values = max(128, min(512, 4096 // _power(steps)))  # of x at a step: the membranes of all steps fit into registers
    return max(1, values // block // side**2), block


def _power(number: int) -> int:
    """The smallest power of 2 that is not below `number`."""
    return triton.next_power_of_2(number)


def _blocks(number: int, size: int) -> int:
    """How many blocks of `size` hold `number`."""
    return triton.cdiv(number, size)
