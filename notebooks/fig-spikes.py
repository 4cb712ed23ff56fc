# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["badges"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-spikes.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-spikes.ipynb)

# %% tags=["setup"] jupyter={"source_hidden": true}
import sys

if "google.colab" in sys.modules:  # Colab opens this file alone: fetch the rest; torch is there already
    import os
    import subprocess

    _url, _home = "https://github.com/OWNER/sparse-gradients-companion", "/content/sparse-gradients-companion"
    if not os.path.exists(_home):
        subprocess.run(["git", "clone", "--depth=1", _url, _home], check=True)
    os.chdir(_home)
    subprocess.run([sys.executable, "-m", "paperlib.environment", "--colab"], check=True)
    sys.path.insert(0, _home)
import paperlib  # before numpy and torch, for it settles the arithmetic

# %% [markdown]
# # What do the spikes do, and which of them does an attack move?
# **The paper says** that sparse *gradients* make a spiking network robust. It does not show the spikes themselves.
#
# **You will see** which neurons spike at which time step on a clean, a noisy and an attacked image; membranes that
# cross the threshold, or just fail to; how many spikes an attack moves beside noise of the same radius; and how often
# each training spikes, with an estimate of its energy.
#
# **Time:** a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius of noise and attack, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 100  # test images
neurons: int = 48  # of a layer, shown in its raster
mac_pj: float = 4.6  # energy of a multiply-add in pJ
ac_pj: float = 0.9  # energy of an accumulation in pJ
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import Attack
from paperlib.measures import spikes

run = runs.begin("fig-spikes", globals())
networks = run.profile.all()
noise = Attack("sign", eps_255 / 255)
attack = Attack("pgd", eps_255 / 255, {"steps": pgd_steps})
trained = run.ask(networks)

# %% [markdown]
# A neuron adds its input $I$ to its membrane and spikes where the sum reaches the threshold $\theta$; then it starts
# again from 0:
#
# $$m[t] = \tau\,v[t-1] + I[t], \qquad s[t] = 1(m[t] \ge \theta), \qquad v[t] = (1 - s[t])\,m[t].$$
#
# A spike is **moved** where $s[t]$ differs from that on the clean image. The share of all neurons and steps where it
# does is the Hamming distance of the spike trains, divided by their length. The noise is $\pm\varepsilon$ with random
# signs. PGD takes all of its steps on every image, also where it has succeeded. The first table says how large both
# perturbations are in the mean.

# %%
test = run.data.test.take(samples)
found, shown = spikes.watched(run.opened(networks), test, noise, attack, neurons=neurons)

# %%
pairs = [("sr", "vanilla"), ("at+sr", "at")]
record = run.save(spikes.spiking_rows(found, pairs, mac_pj=mac_pj, ac_pj=ac_pj), {"shown": shown})
artifacts.draw(record)

# %% [markdown]
# ## What to look at
# Each column is one network. A row of dots is a neuron, from the first time step to the last; the same neurons stand in
# the three blocks. They lie evenly among all that spike on one of the three images, and are sorted by their spikes on
# the clean one. Filled in colour is a spike that the perturbation has made, hollow one that it has taken away.
#
# Compare the blocks under noise and under attack in a column. Where as many dots have colour in both, the number of
# moved spikes cannot tell them apart: what differs is *which* spikes move. An attack chooses those that push the
# decision one way, noise pushes it in all directions at once. The panels at the bottom count over all images and seeds.
#
# ## Why a small perturbation moves a spike
# Here is one neuron of each layer: of those that spike on the clean image, the one whose spikes the attack changes at
# most steps, and of several the one whose membrane it moves least.

# %%
artifacts.draw(record, "membranes")

# %% [markdown]
# ## How often the networks spike, and what that costs
# A spike costs one accumulation for each synapse behind it; these are the **synaptic operations** (SynOps), spikes
# times fan-out. The first convolution takes an image and no spikes, so its multiply-adds (MACs) are counted apart, and
# once, because the image is the same at every step. The estimate multiplies both with the energy of 32-bit
# floating-point arithmetic at 45 nm: 0.9 pJ for an addition and 3.7 pJ for a multiplication (Horowitz, *Computing's
# energy problem*, ISSCC 2014). It leaves out memory, control, BatchNorm and the leak, and says nothing about a
# particular chip.

# %%
artifacts.draw(record, "rates")

# %% [markdown]
# ## The numbers

# %%
Markdown(artifacts.tables(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
