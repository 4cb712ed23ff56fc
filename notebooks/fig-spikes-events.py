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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-spikes-events.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-spikes-events.ipynb)

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
# # What do the spikes do on event data, and which of them does an attack move?
# **The paper says** (C4) that what holds on images holds on event data as well. It does not show the spikes themselves.
#
# **You will see** which neurons spike at which time step on a recording, on the same recording with a few events
# changed at random, and with a few changed by an attack; how many spikes either moves; and how often each training
# spikes, with an estimate of its energy.
#
# **Time:** a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/; its entry `events` names data, network and trainings
trainings: list[str] = ["vanilla", "sr", "at", "at+sr"]  # which of them are looked at
flips: int = 50  # events added or removed, at random or by the attack, at most
flip_steps: int = 10  # rounds in which the attack spends them
samples: int = 40  # test recordings
neurons: int = 48  # of a layer, shown in its raster
ac_pj: float = 0.9  # energy of an accumulation in pJ
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import Attack
from paperlib.measures import spikes

run = runs.begin("fig-spikes-events", globals(), on_events=True)
networks = run.profile.of(trainings)
noise = Attack("random_flips", flips)
attack = Attack("sparse_flips", flips, {"steps": flip_steps})
trained = run.ask(networks)

# %% [markdown]
# Both perturbations change whole events, so that a recording stays one that a camera could have made. The attack
# returns what it does not need: where it succeeds, it changes fewer events than the noise. The first table says how
# many. [`fig-spikes`](fig-spikes.ipynb) explains the neuron, moved spikes and the energy estimate.

# %%
test = run.data.test.take(samples)
found, shown = spikes.watched(run.opened(networks), test, noise, attack, neurons=neurons)

# %%
pairs = [("sr", "vanilla"), ("at+sr", "at")]
rows = spikes.spiking_rows(found, pairs, mac_pj=0, ac_pj=ac_pj)  # events enter as spikes do: no multiply-adds
record = run.save(rows, {"shown": shown})
artifacts.draw(record)

# %% [markdown]
# ## What to look at
# Above are the events of the first time step, ON in red and OFF in blue, and as dots the cells where an event has come
# or gone at any step. Each column is one network, each row of dots a neuron; filled in colour is a spike that the
# changed events have made, hollow one that they have taken away. The neurons lie evenly among all that spike on one of
# the three recordings, and are sorted by their spikes on the clean one.
#
# ## Why a few events move a spike
# Here is one neuron of each layer: of those that spike on the clean recording, the one whose spikes the attack changes
# at most steps, and of several the one whose membrane it moves least.

# %%
artifacts.draw(record, "membranes")

# %% [markdown]
# ## How often the networks spike, and what that costs
# Events enter the first convolution as spikes do: each costs one accumulation for each synapse behind it. So there are
# no multiply-adds here.

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
