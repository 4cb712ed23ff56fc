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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-whitebox.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-whitebox.ipynb)

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
# # What does the paper's own white-box protocol say?
# **The paper says** (C3) that SR makes networks robust under FGSM, RFGSM and PGD of 10, 30 and 50 steps, each repeated
# with four backward rules; an image counts as robust where it survives all four.
#
# **You will see** this protocol at the radius of these data, for vanilla, SR, AT and AT+SR: the accuracy under each
# attack by the network's own rule, and in the worst case of the four rules.
#
# **Time:** 1.5 minutes on trained networks, 5 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: list[float] = [32.0]  # radii, in units of 1/255
steps: list[int] = [10, 30, 50]  # of PGD, each of length 0.32 ε, as 2.55/255 is of 8/255
seeds: int = 3  # of each training the first so many networks
samples: int = 25  # test images
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy
from paperlib.profiles import selections

run = runs.begin("tab-whitebox", globals())
networks = selections.chosen(run.profile, checkpoints, seeds)
protocol = run.ask(networks, protocols.released(eps_255, steps), samples=samples)

# %% [markdown]
# The four rules are the triangle of the training, a sigmoid of slope 4, an arc tangent of γ = 2, and the rate rule,
# which ignores time. The forward pass, and so the network that is judged, is the same for all of them: a rule only says
# how the attack differentiates a spike. RFGSM starts at a random corner at half the radius (the released code's own
# defaults would leave half of the pixels untouched). PGD's step is the released one, 2.55/255 at 8/255, in proportion.
#
# An image leaves an attack at its first misclassified iterate, and the worst case at the first attack that breaks it.

# %%
found = protocol.evaluated()

# %%
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.difference_rows(found, "sr", "vanilla")
    + accuracy.difference_rows(found, "at+sr", "at")
    + accuracy.accuracy_rows(found)
)
artifacts.draw(record)

# %% [markdown]
# ## The table
# Mean accuracy with its 95 % interval over seeds and images, then what SR changes. Few seeds give wide intervals; the
# record also holds every network's own accuracy and the paired differences on the same images, with McNemar's test.

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
