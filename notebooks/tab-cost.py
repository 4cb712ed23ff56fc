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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-cost.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-cost.ipynb)

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
# # What does a robust training cost, and what does it buy?
# **The paper** replaces the gradient's norm by a difference of two passes, so that training needs no double
# back-propagation. Later work reports that SR takes three times as long as its own method even so (MPPD-TV, ICLR 2026).
#
# **You will see** for eleven trainings what one step takes, in passes, arithmetic, seconds and memory, and accuracy in
# the worst case, at equal epochs and with `passes` above 0 at equal passes too. At the end, how to add a training of
# your own by one function.
#
# **Time:** 2 minutes on trained networks, 6 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
batch: int = 64  # training images in the step that is measured
repeats: int = 5  # steps timed, all trainings in turn
passes: int = 0  # forward and backward passes per training image at equal cost: AT's and exact l1's in 5 epochs
cost_seeds: int = 3  # networks of each training that are attacked, at equal epochs and at equal cost
strong_eps_255: float = 32.0  # radius of the attack, in units of 1/255
samples: int = 1000  # test images, clean and under PGD, with which it begins
strong_samples: int = 50  # of these, test images that the rest of it is made on
pgd_steps: int = 20  # its steps of PGD
long_steps: int = 100  # its steps of APGD on each of its two losses
queries: int = 2000  # its forward passes of Square, behind APGD
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from dataclasses import replace

import torch
import torch.nn.functional as F
from IPython.display import Markdown

from paperlib import artifacts, labels, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, cost
from paperlib.profiles import selections
from paperlib.training import defenses

run = runs.begin("tab-cost", globals())
budgets = {
    labels.EPOCHS: selections.at_epochs(run.profile, cost_seeds),
    labels.PASSES: selections.at_cost(run.profile, passes, cost_seeds),
}
strongest = protocols.strongest(strong_eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
first = {
    budget: run.ask(networks, [None, strongest.members[0]], samples=samples) for budget, networks in budgets.items()
}
strong = {budget: run.ask(networks, [strongest], samples=strong_samples) for budget, networks in budgets.items()}

# %% [markdown]
# ## What is counted, and what is timed
# * **Passes:** how often a step goes through the network, forward and backward. A backward pass that can be
#   differentiated again counts twice, because the second backward pass goes through it again.
# * **Multiply-adds:** of convolutions and matrix products. They grow less than passes do: a backward pass to the images
#   alone needs no gradient of the weights.
# * **Bytes kept** for the backward pass, at their maximum: those of the graph, not of the allocator.
# * **Seconds** of a whole step on this machine, optimiser included: the median of `repeats`, with the fastest and the
#   slowest. The trainings take turns.
#
# The first three are the same on any machine. Seconds are not: `make compare` sets them apart. Double back-propagation
# has to step the neuron in Python, where all others take the fused one, which is differentiable once: a good part of
# its seconds and of its memory comes from that.

# %%
trainings = selections.recipes(run.profile)
costs = cost.step_rows(trainings, batch=batch, repeats=repeats, device=device)

# %% [markdown]
# ## At equal passes
# The same networks under the same attack as in `tab-ablation`: each training has the number of epochs that comes
# closest to `passes` passes per image.

# %%
weak = {budget: request.evaluated() for budget, request in first.items()}
both = {budget: weak[budget] + accuracy.in_two_phases(strong[budget].evaluated(), weak[budget]) for budget in budgets}
record = run.save(costs + cost.budget_rows(both))
artifacts.draw(record)

# %% [markdown]
# Left, a step relative to one of vanilla training. Right, the accuracy in the worst case at equal epochs (hollow) and
# at equal passes (full), with the passes of both beside it. The paper's four trainings have colours, the rivals are
# grey.
# Passes are not seconds: at equal seconds, a training whose triangle lies to the right of its circle would have had
# fewer epochs.
#
# ## The tables

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))

# %% [markdown]
# ## A training of your own
# A training is a function of network and batch that returns the loss; its other arguments are its options. Register it
# under a name:


# %%
@defenses.register("noise")
def noise(network, batch, *, sigma):
    """Cross-entropy on images under Gaussian noise."""
    images = batch.images + sigma * torch.randn_like(batch.images)
    return F.cross_entropy(network(images), batch.labels)


# %% [markdown]
# Its cost beside two others:

# %%
mine = replace(trainings[0], defense="noise", options={"sigma": 0.2})
beside = cost.step_rows([*trainings[:2], mine], batch=batch, repeats=repeats, device=device)
Markdown(artifacts.table(run.record(beside)))

# %% [markdown]
# To see it in every table and figure, put the function into a file, `mine.py` say, with a title and a colour:
# `@defenses.register("noise", title="noise", colour="#aa3377")`. A profile that names the file, `params/mine.yml`,
# gives the training its options; under `rivals:` in place of `trainings:` it joins this notebook and `tab-ablation`
# alone.
#
# ```yaml
# base: laptop
# title: laptop with one more training
# imports: [mine.py]
# trainings:
#   noise: {sigma: 0.2}
# ```
#
# Then `make reproduce PROFILE=mine`. A training that also moves weights after each step, as RAT does, is a class with
# `loss(network, batch)` and `after_step(network)`.
