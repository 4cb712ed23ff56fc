"use strict";
/* Pictures of numbers: images, signed maps, spikes, and the membrane of one neuron.  Colours are those of page.css. */

/* A colour of page.css, as [red, green, blue]. */
function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim().slice(1);
  return [0, 2, 4].map((place) => parseInt(hex.slice(place, place + 2), 16));
}

/* Draws width × height pixels; `paint(x, y)` gives each pixel's [red, green, blue]. */
function pixels(canvas, width, height, paint) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
  for (let y = 0, k = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const rgb = paint(x, y);
      for (let channel = 0; channel < 3; channel++) picture.data[k++] = rgb[channel];
      picture.data[k++] = 255;
    }
  context.putImageData(picture, 0, 0);
}

/* An image (C, size, size) in [low, high], grey or with three channels. */
function drawImage(canvas, image, size, [low, high]) {
  const area = size * size, channels = image.length / area;
  const grey = (n, channel) => (255 * (image[(channel < channels ? channel : 0) * area + n] - low)) / (high - low);
  pixels(canvas, size, size, (x, y) => [0, 1, 2].map((channel) => grey(y * size + x, channel)));
}

/* Signed numbers (C, size, size), summed over channels: --more above 0, --less below, full at ±limit. */
function drawSigned(canvas, values, size, limit) {
  const [zero, more, less] = ["zero", "more", "less"].map(colour), area = size * size;
  pixels(canvas, size, size, (x, y) => {
    let value = 0;
    for (let n = y * size + x; n < values.length; n += area) value += values[n];
    const end = value > 0 ? more : less, share = limit ? Math.min(Math.abs(value) / limit, 1) : 0;
    return zero.map((from, n) => from + share * (end[n] - from));
  });
}

/* Spikes of a layer: a row of squares a time step, a square a channel.  `with_` and `without` are membranes. */
function drawSpikes(canvas, layer, T, threshold, with_, without, chosen) {
  const { channels, size } = layer, pitch = size + 1, area = size * size;
  const [zero, line, both, more, less] = ["zero", "line", "text", "more", "less"].map(colour);
  pixels(canvas, channels * pitch - 1, T * pitch - 1, (px, py) => {
    const x = px % pitch, y = py % pitch;
    if (x === size || y === size) return line;
    const n = (Math.floor(py / pitch) * channels + Math.floor(px / pitch)) * area + y * size + x;
    if (with_[n] >= threshold) return without[n] >= threshold ? both : more;
    return without[n] >= threshold ? less : zero;
  });
  if (!chosen) return;
  const context = canvas.getContext("2d"), left = chosen.channel * pitch + chosen.column, top = chosen.row;
  context.strokeStyle = `rgb(${colour("accent")})`;
  for (let t = 0; t < T; t++) context.strokeRect(left - 1.5, t * pitch + top - 1.5, 4, 4);
}

/* The channel, row and column under a pointer on the canvas that drawSpikes drew, or null between the squares. */
function neuronAt(canvas, layer, event) {
  const box = canvas.getBoundingClientRect(), pitch = layer.size + 1;
  const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
  const [column, row] = [x % pitch, y % pitch];
  return Math.max(column, row) < layer.size ? { channel: Math.floor(x / pitch), row, column } : null;
}

/* Membranes before the reset, `with_` and `without` the attack (T each), beside the slope ∂s/∂m of the backward rule. */
function drawMembrane(svg, { with_, without, threshold, slope }) {
  const width = svg.clientWidth, height = 250, top = 22, bottom = height - 34, T = with_.length;
  const every = [...with_, ...without, 0], span = 1.2 * threshold;
  const [low, high] = [Math.min(threshold - span, ...every), Math.max(threshold + span, ...every)];
  const y = (m) => bottom - ((m - low) / (high - low)) * (bottom - top);
  const [from, to, begin, end] = [40, width * 0.3, width * 0.3 + 22, width - 12];
  const x = (t) => begin + (t / T) * (end - begin);
  const parts = [];
  const add = (name, attributes, text = "") => {
    const written = Object.entries(attributes).map(([key, value]) => `${key}="${value}"`);
    parts.push(`<${name} ${written.join(" ")}>${text}</${name}>`);
  };
  const line = (points, stroke, more = {}) =>
    add("polyline", { points: points.map((p) => p.map((v) => v.toFixed(1))).join(" "), fill: "none", stroke, ...more });
  const write = (text, at, height_, anchor = "middle") =>
    add("text", { x: at, y: height_, "text-anchor": anchor, fill: "var(--soft)", "font-size": 12 }, text);

  const levels = Array.from({ length: bottom - top + 1 }, (_, n) => low + (n / (bottom - top)) * (high - low));
  const slopes = levels.map((m) => slope(m - threshold)), steepest = slope(0); // every rule is steepest at θ
  line([[from, y(low)], ...levels.map((m, n) => [from + (slopes[n] / steepest) * (to - from), y(m)]), [from, y(high)]],
    "var(--text)", { fill: "var(--line)", "stroke-width": 1.5 });
  write(`slope ≤ ${steepest.toPrecision(2)}`, (from + to) / 2, 14);
  write("membrane m", (begin + end) / 2, 14);
  for (const [level, name] of [[0, "0"], [threshold, "θ"]]) {
    line([[from, y(level)], [end, y(level)]], "var(--soft)", level ? { "stroke-dasharray": "5 4" } : {});
    write(name, from - 6, y(level) + 4, "end");
  }
  for (let t = 1; t <= T; t++) write(t, x(t), bottom + 16);
  write("time step", (begin + end) / 2, height - 3);

  for (const [membranes, stroke, more] of [
    [without, "var(--less)", { "stroke-width": 2, "stroke-dasharray": "2 4" }],
    [with_, "var(--more)", { "stroke-width": 2.5 }],
  ]) {
    const points = [[x(0), y(0)]];
    membranes.forEach((m, t) => points.push([x(t + 1), y(m)], [x(t + 1), y(m >= threshold ? 0 : m)]));
    line(points, stroke, more);
    membranes.forEach((m, t) => add("circle", { cx: x(t + 1), cy: y(m), r: 5, stroke, "stroke-width": 2,
      fill: m >= threshold ? stroke : "var(--panel)" }));
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.innerHTML = parts.join("");
}
