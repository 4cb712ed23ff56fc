"use strict";
/* A spiking network and its attacks in plain JavaScript: the formulas of paperlib/networks and paperlib/attacks.

   Arrays are Float32Array, flat, in the order (step, channel, row, column).  Sums of convolutions are taken in 64 bits;
   elsewhere f32 rounds where torch rounds.  A layer is a 3×3 convolution, BatchNorm in eval mode, the neuron

       m[t] = τ·v[t-1] + I[t]      s[t] = 1(m[t] ≥ θ)      v[t] = (1 - s[t])·m[t]

   and a 2×2 average pool, which drops an odd last row and column.  The same image is fed at every step. */

const f32 = Math.fround;

// ∂s/∂m as a function of u = m - θ and of the rule's width (paperlib/networks/rules.py)
const RULES = {
  triangle: (u, gamma) => Math.max(0, gamma - Math.abs(u)) / gamma ** 2,
  sigmoid: (u, slope) => {
    const s = 1 / (1 + Math.exp(-slope * u));
    return slope * s * (1 - s);
  },
  atan: (u, gamma) => gamma / 2 / (1 + ((Math.PI * gamma * u) / 2) ** 2),
  rectangle: (u, gamma) => (Math.abs(u) < gamma / 2 ? 1 / gamma : 0),
  exponential: (u, gamma) => Math.exp(-Math.abs(u) / gamma) / (2 * gamma),
  "straight-through": () => 1,
};

/* ---- the network ------------------------------------------------------------------------------------------------ */

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/* A network from its description (see describe in paperlib/explorer/content.py), with its weights as arrays. */
function networkOf(description) {
  const numbers = new Float32Array(bytes(description.weights).buffer);
  let place = 0;
  const take = (count) => numbers.subarray(place, (place += count));
  const layers = [];
  let { channels, size } = description;
  for (const width of description.widths) {
    const layer = { channels: width, inputs: channels, size, pooled: size >> 1, kernel: take(width * channels * 9) };
    layer.back = transposed(layer.kernel, width, channels);
    layer.cell = cellsOf(layer);
    layer.bias = take(width);
    layer.scale = take(width);
    layer.shift = take(width);
    layers.push(layer);
    [channels, size] = [width, layer.pooled];
  }
  const features = channels * size * size;
  const head = { features, weight: take(description.classes * features), bias: take(description.classes) };
  return { ...description, layers, head };
}

/* The kernel (out, in, 3, 3) of the convolution's backward pass, (in, out, 3, 3), turned by 180 degrees. */
function transposed(kernel, out, inputs) {
  const result = new Float32Array(kernel.length);
  for (let o = 0; o < out; o++)
    for (let i = 0; i < inputs; i++)
      for (let k = 0; k < 9; k++) result[(i * out + o) * 9 + 8 - k] = kernel[(o * inputs + i) * 9 + k];
  return result;
}

/* A 3×3 convolution with padding 1 of x (steps, inputs, size, size) → (steps, out, size, size). */
function convolve(x, steps, inputs, size, kernel, out, bias) {
  const area = size * size, wide = size + 2, padded = new Float64Array(inputs * wide * wide);
  const sums = new Float64Array(area), result = new Float32Array(steps * out * area);
  for (let t = 0; t < steps; t++) {
    for (let i = 0; i < inputs; i++)
      for (let y = 0; y < size; y++) {
        const from = ((t * inputs + i) * size + y) * size;
        padded.set(x.subarray(from, from + size), (i * wide + y + 1) * wide + 1);
      }
    for (let o = 0; o < out; o++) {
      sums.fill(bias ? bias[o] : 0);
      for (let i = 0; i < inputs; i++) {
        const k = (o * inputs + i) * 9;
        const a = kernel[k], b = kernel[k + 1], c = kernel[k + 2];
        const d = kernel[k + 3], e = kernel[k + 4], f = kernel[k + 5];
        const g = kernel[k + 6], h = kernel[k + 7], j = kernel[k + 8];
        for (let y = 0, place = 0; y < size; y++) {
          let p = (i * wide + y) * wide, q = p + wide, r = q + wide;
          for (let end = place + size; place < end; place++, p++, q++, r++)
            sums[place] +=
              a * padded[p] + b * padded[p + 1] + c * padded[p + 2] +
              d * padded[q] + e * padded[q + 1] + f * padded[q + 2] +
              g * padded[r] + h * padded[r + 1] + j * padded[r + 2];
        }
      }
      result.set(sums, (t * out + o) * area);
    }
  }
  return result;
}

/* Membranes m (T, C, H, W) before the reset, from the convolution's output z (1 or T, C, H, W). */
function integrate(network, layer, z) {
  const { T, tau, threshold } = network, area = layer.size ** 2, count = layer.channels * area;
  const membranes = new Float32Array(T * count), varies = z.length > count;
  for (let n = 0; n < count; n++) {
    const channel = Math.floor(n / area), scale = layer.scale[channel], shift = layer.shift[channel];
    for (let t = 0, v = 0; t < T; t++) {
      const current = f32(f32(z[varies ? t * count + n : n] * scale) + shift);
      const m = t ? f32(f32(v * tau) + current) : current;
      membranes[t * count + n] = m;
      v = m < threshold ? m : 0;
    }
  }
  return membranes;
}

/* The cell behind the pool, (C, H/2, W/2), of each neuron (C, H, W) of a layer; -1 where the pool drops it. */
function cellsOf({ channels, size, pooled }) {
  const cells = new Int32Array(channels * size * size);
  for (let n = 0; n < cells.length; n++) {
    const x = (n % size) >> 1, y = (Math.floor(n / size) % size) >> 1, c = Math.floor(n / (size * size));
    cells[n] = x < pooled && y < pooled ? (c * pooled + y) * pooled + x : -1;
  }
  return cells;
}

/* Logits (K) of an image, and of each layer the membranes (T, C, H, W) and the pooled spikes (T, C, H/2, W/2). */
function forward(network, image) {
  const { T, threshold, layers, head } = network, area = image.length / network.channels;
  let x = image.map((value, n) => {
    const channel = Math.floor(n / area);
    return f32(value - f32(network.mean[channel])) / f32(network.std[channel]);
  });
  const membranes = [], spikes = [];
  for (const [number, layer] of layers.entries()) {
    const { channels, inputs, size, pooled, cell } = layer, cells = channels * pooled ** 2;
    const m = integrate(network, layer, convolve(x, number ? T : 1, inputs, size, layer.kernel, channels, layer.bias));
    membranes.push(m);
    x = new Float32Array(T * cells);
    for (let t = 0, k = 0; t < T; t++)
      for (let n = 0; n < cell.length; n++, k++) if (m[k] >= threshold && cell[n] >= 0) x[t * cells + cell[n]] += 0.25;
    spikes.push(x);
  }
  const logits = Array.from(head.bias);
  for (let n = 0; n < head.features; n++) {
    let rate = 0;
    for (let t = 0; t < T; t++) rate += x[t * head.features + n];
    rate = f32(rate / T);
    if (rate) for (let k = 0; k < logits.length; k++) logits[k] += rate * head.weight[k * head.features + n];
  }
  return { logits: logits.map(f32), membranes, spikes };
}

/* The surrogate gradient Σ weights[k]·∂logit_k/∂image, of the image's shape, from the state that `forward` returned. */
function backward(network, state, weights, rule, width) {
  const { T, tau, threshold, layers, head } = network, slope = RULES[rule];
  let pooled = new Float32Array(head.features); // the gradient of the pooled spikes, at first the same at every step
  for (let n = 0; n < head.features; n++) {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * head.weight[k * head.features + n];
    pooled[n] = f32(sum) / T;
  }
  for (let number = layers.length - 1; number >= 0; number--) {
    const layer = layers[number], m = state.membranes[number], area = layer.size ** 2, count = layer.cell.length;
    const steps = number ? T : 1, cells = layer.channels * layer.pooled ** 2, varies = pooled.length > cells;
    const gradients = new Float32Array(steps * count); // of the convolution's output
    for (let n = 0; n < count; n++) {
      const scale = layer.scale[Math.floor(n / area)], cell = layer.cell[n];
      if (cell < 0) continue; // nothing reads its spikes
      let later = 0, total = 0; // the gradient of v[t], and the sum over the steps
      for (let t = T - 1; t >= 0; t--) {
        const membrane = m[t * count + n], s = f32(slope(f32(membrane - threshold), width));
        let g = f32(pooled[varies ? t * cells + cell : cell] / 4);
        if (!network.detach_reset) g = f32(g - f32(later * membrane)); // ∂v/∂m = (1 - s) - m·∂s/∂m
        g = f32((membrane < threshold ? later : 0) + f32(s * g));
        later = f32(g * tau);
        if (number) gradients[t * count + n] = g * scale;
        else total = f32(total + g); // the first layer's current is the same at every step
      }
      if (!number) gradients[n] = total * scale;
    }
    pooled = convolve(gradients, steps, layer.channels, layer.size, layer.back, layer.inputs, null);
  }
  const area = pooled.length / network.channels;
  return pooled.map((value, n) => value / f32(network.std[Math.floor(n / area)]));
}

/* Class probabilities; `round` is f32 where torch computes them in 32 bits. */
function softmax(logits, round = (value) => value) {
  const largest = Math.max(...logits);
  const log = round(Math.log(logits.reduce((sum, z) => sum + Math.exp(z - largest), 0)));
  return logits.map((z) => round(Math.exp(round(round(z - largest) - log))));
}

/* The class with the largest logit. */
function answer(logits) {
  return logits.indexOf(Math.max(...logits));
}

/* ∇ₓ f_y, the gradient of the probability of class y, from the state that `forward` returned. */
function probabilityGradient(network, state, y, rule, width) {
  const p = softmax(state.logits);
  return backward(network, state, p.map((value, k) => p[y] * ((k === y) - value)), rule, width);
}

/* ∇ₓ of the cross-entropy -log f_y. */
function lossGradient(network, state, y, rule, width) {
  const p = softmax(state.logits, f32);
  return backward(network, state, p.map((value, k) => f32(value - (k === y))), rule, width);
}

/* ---- the attacks ------------------------------------------------------------------------------------------------ */

const MASK = (bits) => (1n << BigInt(bits)) - 1n;

/* The words with which numpy's SeedSequence((seed, index)) seeds a generator: eight of 32 bits. */
function seedWords(seed, index) {
  let hash = 0x43b0d7e5;
  const mixed = (value, multiplier) => {
    value ^= hash;
    hash = Math.imul(hash, multiplier);
    value = Math.imul(value, hash);
    return value ^ (value >>> 16);
  };
  const pool = [seed, index, 0, 0].map((value) => mixed(value, 0x931e8875));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++)
      if (from !== to) {
        const value = Math.imul(0xca01f9dd, pool[to]) - Math.imul(0x4973f715, mixed(pool[from], 0x931e8875));
        pool[to] = value ^ (value >>> 16);
      }
  hash = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, n) => mixed(pool[n % 4], 0x58f38ded) >>> 0);
}

/* `count` draws from U[-1, 1]: those of paperlib's attacks, numpy's default_rng((seed, index)) in 32 bits (PCG64). */
function noise(seed, index, count) {
  const words = seedWords(seed, index).map(BigInt), multiplier = 0x2360ed051fc65da44385df649fccf645n;
  const wide = (a) => (words[a + 1] << 96n) | (words[a] << 64n) | (words[a + 3] << 32n) | words[a + 2];
  const increment = ((wide(4) << 1n) | 1n) & MASK(128);
  const next = (state) => (state * multiplier + increment) & MASK(128);
  let state = next((increment + wide(0)) & MASK(128));
  const draws = new Float32Array(count);
  for (let n = 0; n < count; n += 2) {
    state = next(state);
    const folded = (state >> 64n) ^ (state & MASK(64)), turn = state >> 122n;
    const value = ((folded >> turn) | (folded << (64n - turn))) & MASK(64);
    draws[n] = (Number(value & MASK(32)) >>> 8) / 2 ** 23 - 1;
    if (n + 1 < count) draws[n + 1] = (Number(value >> 32n) >>> 8) / 2 ** 23 - 1;
  }
  return draws;
}

/* The image under an attack within l∞ distance `eps`, clamped to `bounds`: paperlib's attacks of these names.

   options: name ("none", "uniform", "sign", "fgsm" or "pgd"), eps, steps, seed and index (of the random draw), rule and
   width (of the gradient), bounds.  PGD starts at uniform noise, steps by α = 2.5·ε/steps along the gradient's sign and
   takes all steps, also beyond the first wrong answer. */
function attacked(network, image, y, options) {
  const { name, steps, rule, width, bounds } = options, eps = f32(options.eps);
  const low = image.map((value) => Math.max(f32(value - eps), bounds[0]));
  const high = image.map((value) => Math.min(f32(value + eps), bounds[1]));
  const moved = (x, length, direction) =>
    x.map((value, n) => Math.min(Math.max(f32(value + f32(length * direction[n])), low[n]), high[n]));
  const up = (x, length) => moved(x, length, lossGradient(network, forward(network, x), y, rule, width).map(Math.sign));
  if (name === "none") return image;
  if (name === "fgsm") return up(image, eps);
  const draws = noise(options.seed, options.index, image.length);
  if (name === "sign") return moved(image, eps, draws.map((value) => (value < 0 ? -1 : 1)));
  let x = moved(image, eps, draws);
  if (name === "pgd") for (let step = 0; step < steps; step++) x = up(x, f32((2.5 * options.eps) / steps));
  return x;
}

if (typeof module !== "undefined")
  module.exports = { RULES, networkOf, forward, backward, softmax, answer, probabilityGradient, lossGradient, noise, attacked };
