"use strict";
/* The page: its state, the controls that change it, and everything that is computed and shown from it. */

const find = (id) => document.getElementById(id);
const content = JSON.parse(find("content").textContent);
const { data, start } = content;
const networks = content.networks.map(networkOf);
const digits = content.images.map(({ pixels: base64 }) => Float32Array.from(bytes(base64), (value) => f32(value / 255)));
const classes = data.classes.length;
const DRAWN = digits.length; // the number of the drawn image
const blank = () => new Float32Array(data.channels * data.size ** 2).fill(data.bounds[0]);

const pad = { image: blank(), x: data.size >> 1, y: data.size >> 1 }; // the drawn image, and the pen's place
const state = { ...start, neuron: null };
let shown; // what was computed last
let laidOut; // the network for whose layers there are canvases
let waiting; // the timer of the other networks

/* ---- what is computed ------------------------------------------------------------------------------------------- */

const imageOf = () => (state.image === DRAWN ? pad.image : digits[state.image]);
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const className = (k) => data.classes[k];

/* The image, under the attack and without it, as one network sees both.

   The class to attack is the label; a drawn image has none, so it is the network's own answer to it. */
function computed(network) {
  const image = imageOf(), clean = forward(network, image);
  const y = state.image === DRAWN ? answer(clean.logits) : content.images[state.image].label;
  const index = state.image === DRAWN ? 0 : content.images[state.image].index;
  const options = { ...state, name: state.attack, eps: state.eps_255 / 255, index, bounds: data.bounds };
  const attackedImage = attacked(network, image, y, options), under = forward(network, attackedImage);
  return { image, attackedImage, y, clean, under, before: answer(clean.logits), after: answer(under.logits) };
}

/* Computes and shows everything for the present state, and later, when nothing moves, the answers of other networks. */
function update() {
  clearTimeout(waiting);
  const began = performance.now(), network = networks[state.network];
  shown = { network, ...computed(network) };
  shown.gradient = probabilityGradient(network, shown.under, shown.y, state.rule, state.width);
  showControls();
  showPictures();
  showClasses();
  showVerdict();
  showSpikes();
  const took = performance.now() - began;
  find("computed").textContent =
    `Image, attack, gradient, spikes and membranes were computed in ${took.toFixed(0)} ms in this browser, with ` +
    `${network.layers.length} convolutions of ${network.widths.join(" and ")} channels, ${network.T} time steps, τ = ` +
    `${network.tau} and θ = ${network.threshold}. No server is asked, and nothing leaves your machine.`;
  networks.forEach((_, n) => n !== state.network && showAnswer(n, null));
  showAnswer(state.network, shown);
  waiting = setTimeout(others, 250, 0);
}

/* The answers of the networks from number n on that are not shown, one at a time, so that controls stay quick. */
function others(n) {
  if (n === networks.length) return;
  if (n !== state.network) showAnswer(n, computed(networks[n]));
  waiting = setTimeout(others, 0, n + 1);
}

/* ---- what is shown ---------------------------------------------------------------------------------------------- */

function showAnswer(n, result) {
  const small = find(`answer-${n}`);
  small.textContent = result ? `answers ${className(result.after)} ${result.after === result.y ? "✓" : "✗"}` : "…";
  small.className = !result ? "" : result.after === result.y ? "kept" : "lost";
}

function showControls() {
  for (const name of ["eps", "steps", "seed", "width"]) {
    const value = state[name === "eps" ? "eps_255" : name];
    if (value === null) continue;
    find(name).value = value;
    find(`${name}-value`).textContent = Math.round(value * 10) / 10;
  }
  find("attack").value = state.attack;
  find("rule").value = state.rule;
  find("eps").disabled = state.attack === "none";
  find("steps").disabled = state.attack !== "pgd";
  find("seed").disabled = ["none", "fgsm"].includes(state.attack);
  const { option } = content.rules.find(({ name }) => name === state.rule);
  find("width").disabled = !option;
  find("width-name").textContent = { gamma: "Width γ of the rule", slope: "Steepness k of the rule" }[option] || "Width";
  document.querySelectorAll("[name=training]").forEach((radio, n) => (radio.checked = n === state.network));
  document.querySelectorAll("[name=image]").forEach((radio, n) => (radio.checked = n === state.image));
  const told = Object.keys(start).every((key) => key === "network" || state[key] === start[key]);
  document.querySelectorAll("#retell button").forEach((button, n) => {
    button.setAttribute("aria-pressed", told && n === state.network);
  });
}

function showPictures() {
  const { image, attackedImage, gradient, y } = shown, { size, bounds, channels } = data, eps = state.eps_255 / 255;
  const difference = attackedImage.map((value, n) => value - image[n]), name = className(y);
  const sizes = gradient.map(Math.abs), largest = Math.max(...sizes), l1 = sizes.reduce((sum, g) => sum + g, 0);
  const number = largest ? l1 ** 2 / sizes.reduce((sum, g) => sum + g * g, 0) : 0;
  const changed = difference.filter((value) => value).length, summed = channels > 1 ? ", summed over channels" : "";
  drawImage(find("image"), image, size, bounds);
  drawImage(find("attacked"), attackedImage, size, bounds);
  drawSigned(find("perturbation"), difference, size, channels * eps);
  drawSigned(find("gradient"), gradient, size, largest);
  const own = state.image === DRAWN ? "your drawing; attacks lead away from the answer to it" : `test image ${content.images[state.image].index} (${name})`;
  const texts = {
    image: `${own}. Draw on it with mouse, finger, or arrow keys and space.`,
    perturbation: `Orange: brighter, blue: darker${summed}; ${changed} of ${image.length} values change, by at most ` +
      `${state.attack === "none" ? 0 : state.eps_255}/255.`,
    attacked: `Image plus perturbation, within [${bounds}]: what the network is shown.`,
    gradient: largest
      ? `∇f: where more brightness makes ${name} likelier (orange) or less likely (blue), on its own scale${summed}. ` +
        `‖∇f‖₁ = ${l1.toPrecision(2)}; as if ${number.toFixed(0)} of ${image.length} values shared it alike (PN).`
      : "∇f is exactly 0 here: the network gives an attack no direction.",
  };
  for (const [id, text] of Object.entries(texts)) {
    find(`${id}-text`).textContent = text;
    find(id).setAttribute("aria-label", id === "image" ? `Pad to draw on: ${text}` : text);
  }
}

function showClasses() {
  const before = softmax(shown.clean.logits), after = softmax(shown.under.logits);
  let order = [...before.keys()];
  if (classes > 12) order = order.sort((a, b) => after[b] - after[a]).slice(0, 12);
  find("classes").replaceChildren(
    ...order.map((k) => {
      const item = document.createElement("li");
      item.className = k === shown.after ? "answer" : "";
      item.innerHTML = `<span></span><span class="bar"><i style="width:${100 * after[k]}%"></i>
        <b style="left:calc(${100 * before[k]}% - 2px)"></b></span><span>${percent(after[k])}</span>`;
      item.firstChild.textContent = className(k);
      return item;
    }),
  );
}

function showVerdict() {
  const { network, clean, under, before, after, y } = shown;
  const sure = (logits, k) => `${className(k)} (${percent(softmax(logits)[k])})`;
  const told = `${network.title} answers ${sure(under.logits, after)}; without the attack ${sure(clean.logits, before)}. `;
  let end = after === y ? `It keeps the ${className(y)}.` : `It loses the ${className(y)}.`;
  if (before !== y) end = `The label is ${className(y)}: it is wrong without any attack.`;
  if (state.attack === "none") end = before === y ? "There is no attack." : end;
  find("verdict").textContent = told;
  find("verdict").append(Object.assign(document.createElement("strong"), { textContent: end }));
  find("verdict").lastChild.className = after === y ? "kept" : "lost";
}

/* The neuron whose spikes the attack changes most; without a change, the one that spikes most. */
function mostChanged() {
  let best = -1, found;
  shown.network.layers.forEach((layer, number) => {
    const without = shown.clean.membranes[number], with_ = shown.under.membranes[number];
    const { T, threshold } = shown.network, count = without.length / T;
    for (let n = 0; n < count; n++) {
      let score = 0;
      for (let t = n; t < without.length; t += count) {
        const [a, b] = [without[t] >= threshold, with_[t] >= threshold];
        score += (a !== b) + (a && b) / (4 * T);
      }
      if (score > best) {
        best = score;
        found = [number, n];
      }
    }
  });
  const [number, n] = found, { size } = shown.network.layers[number];
  return { layer: number, channel: Math.floor(n / size ** 2), row: Math.floor(n / size) % size, column: n % size };
}

function showSpikes() {
  const { network, clean, under } = shown, { T, threshold, layers } = network;
  if (laidOut !== network) layOut(network);
  const neuron = state.neuron || mostChanged(), { size, channels } = layers[neuron.layer];
  document.querySelectorAll("#layers canvas").forEach((canvas, n) => {
    const [with_, without] = [under.membranes[n], clean.membranes[n]];
    drawSpikes(canvas, layers[n], T, threshold, with_, without, n === neuron.layer && neuron);
    const count = with_.filter((m) => m >= threshold).length;
    const moved = with_.filter((m, k) => m >= threshold !== without[k] >= threshold).length;
    const text = `Layer ${n + 1}: ${layers[n].channels} channels of ${layers[n].size} × ${layers[n].size} neurons; ` +
      `${count} spikes under the attack, ${moved} changed by it.`;
    canvas.setAttribute("aria-label", text);
    find(`layer-${n}`).textContent = text;
  });
  const place = (neuron.channel * size + neuron.row) * size + neuron.column;
  const trace = ({ membranes }) => Array.from({ length: T }, (_, t) => membranes[neuron.layer][t * channels * size ** 2 + place]);
  const slope = (u) => RULES[state.rule](u, state.width);
  const traces = { with_: trace(under), without: trace(clean), threshold, slope };
  drawMembrane(find("membrane"), traces);
  const told = (membranes) => membranes.map((m) => m.toFixed(2) + (m >= threshold ? " (spike)" : "")).join(", ");
  find("membrane-text").textContent =
    `Solid, orange: under the attack, m = ${told(traces.with_)}. Dotted, blue: without it, m = ${told(traces.without)}. ` +
    "A full circle is a spike.";
  find("membrane").setAttribute("aria-label", find("membrane-text").textContent);
  const limits = { layer: layers.length, channel: channels, row: size, column: size };
  for (const [name, most] of Object.entries(limits)) Object.assign(find(name), { max: most, value: neuron[name] + 1 });
}

/* ---- controls --------------------------------------------------------------------------------------------------- */

function set(changes) {
  Object.assign(state, changes);
  if ("network" in changes && !fits(state.neuron)) state.neuron = null; // networks may have other layers
  update();
}

/* Whether the shown network has such a neuron. */
function fits(neuron) {
  const layer = neuron && networks[state.network].layers[neuron.layer];
  return layer && neuron.channel < layer.channels && Math.max(neuron.row, neuron.column) < layer.size;
}

/* A radio button with a label of its own; returns the label. */
function radio(parent, group, text, choose) {
  const label = document.createElement("label"), input = document.createElement("input");
  Object.assign(input, { type: "radio", name: group });
  input.addEventListener("change", choose);
  label.append(input, text);
  parent.append(label);
  return label;
}

/* Paints a dot around the pad's place (x, y), whatever image was shown before. */
function paint() {
  if (state.image !== DRAWN) pad.image = digits[state.image].slice();
  const { size, bounds, channels } = data, radius = size / 14;
  for (let n = 0; n < channels * size * size; n++) {
    const distance = Math.hypot((n % size) - pad.x, (Math.floor(n / size) % size) - pad.y);
    const ink = bounds[0] + (bounds[1] - bounds[0]) * Math.min(1, Math.max(0, 1.5 - distance / radius));
    pad.image[n] = Math.max(pad.image[n], ink);
  }
  set({ image: DRAWN });
}

function buildTrainings() {
  networks.forEach((network, n) => {
    const label = radio(find("trainings"), "training", ` ${network.title}`, () => set({ network: n }));
    label.style.setProperty("--colour", network.colour);
    label.append(Object.assign(document.createElement("small"), { id: `answer-${n}` }));
    if (n > 1) return;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: network.title });
    button.addEventListener("click", () => set({ ...start, network: n, neuron: null }));
    find("retell").append(button);
  });
}

function buildImages() {
  digits.forEach((image, n) => {
    const label = radio(find("images"), "image", "", () => set({ image: n }));
    const canvas = document.createElement("canvas");
    const { index, label: y } = content.images[n];
    label.firstChild.setAttribute("aria-label", `test image ${index} (${className(y)})`);
    label.append(canvas);
    drawImage(canvas, image, data.size, data.bounds);
  });
  radio(find("images"), "image", "drawn", () => set({ image: DRAWN }));
  find("empty").addEventListener("click", () => {
    pad.image = blank();
    set({ image: DRAWN });
  });
}

function buildPad() {
  const canvas = find("image");
  const follow = (event) => {
    const box = canvas.getBoundingClientRect();
    pad.x = ((event.clientX - box.left) / box.width) * data.size - 0.5;
    pad.y = ((event.clientY - box.top) / box.height) * data.size - 0.5;
    paint();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && follow(event));
  canvas.addEventListener("keydown", (event) => {
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    if (!right && !down && event.key !== " ") return;
    event.preventDefault();
    pad.x = Math.min(Math.max(Math.round(pad.x) + right, 0), data.size - 1);
    pad.y = Math.min(Math.max(Math.round(pad.y) + down, 0), data.size - 1);
    if (event.key === " ") return paint();
    drawImage(canvas, imageOf(), data.size, data.bounds);
    canvas.getContext("2d").strokeStyle = `rgb(${colour("more")})`;
    canvas.getContext("2d").strokeRect(pad.x - 0.5, pad.y - 0.5, 2, 2); // the pen
  });
}

function buildControls() {
  const number = (id, key) => find(id).addEventListener("input", (event) => set({ [key]: Number(event.target.value) }));
  number("eps", "eps_255");
  number("steps", "steps");
  number("seed", "seed");
  number("width", "width");
  find("attack").addEventListener("change", (event) => set({ attack: event.target.value }));
  find("rule").append(...content.rules.map(({ name }) => new Option(name, name)));
  find("rule").addEventListener("change", ({ target }) => {
    set({ rule: target.value, width: content.rules.find(({ name }) => name === target.value).value });
  });
  find("controls").addEventListener("submit", (event) => event.preventDefault());
}

function buildNeuron() {
  const names = ["layer", "channel", "row", "column"];
  const chosen = (event) => {
    const neuron = Object.fromEntries(names.map((name) => [name, Math.max(0, Math.trunc(find(name).value) - 1)]));
    neuron.layer = Math.min(neuron.layer, networks[state.network].layers.length - 1);
    const { channels, size } = networks[state.network].layers[neuron.layer];
    neuron.channel = Math.min(neuron.channel, channels - 1);
    for (const name of ["row", "column"]) neuron[name] = Math.min(neuron[name], size - 1);
    set({ neuron });
  };
  names.forEach((name) => find(name).addEventListener("change", chosen));
  find("changed").addEventListener("click", () => set({ neuron: null }));
}

/* A caption and a canvas for each layer of a network. */
function layOut({ layers, T }) {
  find("layers").replaceChildren();
  layers.forEach((layer, n) => {
    const box = document.createElement("div");
    box.className = "layer";
    box.innerHTML = `<p class="note" id="layer-${n}"></p><div><div class="times"></div><canvas role="img"></canvas></div>`;
    box.querySelector(".times").innerHTML = Array.from({ length: T }, (_, t) => `<span>t = ${t + 1}</span>`).join("");
    box.querySelector("canvas").addEventListener("click", (event) => {
      const place = neuronAt(event.target, layer, event);
      if (place) set({ neuron: { layer: n, ...place } });
    });
    find("layers").append(box);
  });
  laidOut = shown.network;
}

function buildTexts() {
  find("story").textContent = content.story;
  find("agreement").textContent = content.agreement;
  find("choice").textContent = content.choice;
  find("networks").replaceChildren(
    ...content.networks.map(({ described }) => Object.assign(document.createElement("li"), { textContent: described })),
  );
}

buildTrainings();
buildImages();
buildPad();
buildControls();
buildNeuron();
buildTexts();
update();
addEventListener("resize", showSpikes);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
