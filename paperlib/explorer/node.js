"use strict";
/* Runs the engine in Node: see paperlib/explorer/node.py. */

const engine = require("./engine.js");
const { description, images, labels, indices, options } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const network = engine.networkOf(description);
const results = images.map((pixels, n) => {
  const image = new Float32Array(pixels), state = engine.forward(network, image);
  const gradient = engine.probabilityGradient(network, state, labels[n], options.rule, options.width);
  const attacked = engine.attacked(network, image, labels[n], { ...options, index: indices[n] });
  return {
    logits: state.logits,
    spikes: state.spikes.flatMap((layer) => Array.from(layer)),
    gradient: Array.from(gradient),
    attacked: Array.from(attacked),
  };
});
console.log(JSON.stringify(results));
