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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/your-network.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fyour-network.ipynb)

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
# # How robust is your own network?
# **The question** is yours: you have a classifier, spiking or not, and want the row of a robustness table for it.
#
# **You will see** two calls do it. `paperlib.load` gives a trained network of this companion, `paperlib.judge` measures
# any `nn.Module`: here a plain snnTorch network, which knows nothing of this library and is trained in the notebook.
#
# **Time:** 2 minutes on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/ names data and the network to compare with
eps_255: float = 32.0  # radius of the attacks, in units of 1/255
budget: str = "quick"  # how much is spent on attacks: quick, standard or full
samples: int = 100  # test images
epochs: int = 2  # of the training below
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn

import paperlib
from paperlib import runs

run = runs.begin("your-network", globals())
ours = run.ask(run.profile.experiments("sr", seeds=run.profile.seeds[:1]))

# %% [markdown]
# ## A network of this companion
# `judge` takes a network in eval mode, images and labels, the radius in the images' units, and their bounds. The worst
# case counts the images that no attack breaks. A number marked † should not be believed; the reason stands below.

# %%
data = run.data
test, eps = data.test.take(samples), eps_255 / 255
images, labels = test.pixels(), test.labels
paperlib.judge(paperlib.load(profile, "sr", device=device), images, labels, eps=eps, bounds=data.bounds, budget=budget)

# %% [markdown]
# ## A network of your own
# One hidden layer of leaky neurons, stepped four times over the same image; the logits are the mean over the steps. Any
# other `nn.Module` that maps images to logits will do.


# %%
class Net(nn.Module):
    def __init__(self, pixels, classes):
        super().__init__()
        self.hidden, self.leaky, self.readout = nn.Linear(pixels, 100), snn.Leaky(beta=0.9), nn.Linear(100, classes)

    def forward(self, images):
        current, membrane, spikes = self.hidden(images.flatten(1)), self.leaky.init_leaky(), []
        for _ in range(4):
            spike, membrane = self.leaky(current, membrane)
            spikes.append(spike)
        return self.readout(torch.stack(spikes).mean(0))


torch.manual_seed(0)
network = Net(images[0].numel(), data.num_classes)
optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(epochs):
    for x, y, _ in data.train.batches(64):
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
robustness = paperlib.judge(network.eval(), images, labels, eps=eps, bounds=data.bounds, budget=budget)
robustness

# %% [markdown]
# The result is data as well: shares in [0, 1], and a row for each attack.

# %%
f"clean {robustness.clean:.2f}, worst case {robustness.worst_case:.2f}; " + ", ".join(
    f"{row['attack']} {row['accuracy']:.2f}" for row in robustness.rows
)

# %% [markdown]
# ## What was found
# One network says nothing of another training of the same: the intervals are over images alone. To see a training of
# your own in every table and figure, over several seeds, register it (`tab-cost` shows how).
