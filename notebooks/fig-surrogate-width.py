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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-surrogate-width.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-surrogate-width.ipynb)

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
# # Does the attacker's surrogate have to be the training's?
# **The paper says** (C3) that SR makes networks robust, with the attack differentiating spikes by the triangle of width
# γ = 1 that the training used and by three other fixed rules. Its reviewers asked for a sweep of widths from 0.1 to 3,
# and arXiv 2512.22522 finds that fixed surrogates overstate the robustness of spiking networks.
#
# **You will see** the accuracy of vanilla, SR, AT and AT+SR under PGD whose backward rule is a triangle, a rectangle or
# an exponential of each width, beside the network's own rule, rules without a width, and all widths together.
#
# **Time:** 1 minute on trained networks, 3 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius of every attack, in units of 1/255
gammas: list[float] = [0.1, 0.25, 0.5, 1.0, 3.0]  # widths of the backward rules
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
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

run = runs.begin("fig-surrogate-width", globals())
networks = selections.chosen(run.profile, checkpoints, seeds)
swept = protocols.rules_at(eps_255, gammas, steps=pgd_steps)
attacked = run.ask(networks, swept, samples=samples)

# %% [markdown]
# A spike is a step function of the membrane: its derivative is 0 almost everywhere. A backward rule puts a bump of area
# 1 in its place, and γ says how wide. With a narrow bump only neurons near their threshold pass on a gradient; with a
# wide one all do, whether an input could ever flip them or not. **straight-through** is a slope of 1 everywhere;
# **rate**, **ASSG** and **PDSG** have no width to choose either: the last two follow the membranes of the network at
# hand. The forward pass, and so the network that is judged, never changes: a robust one must withstand the rule that
# breaks most.
#
# Trying all widths means many tries. So there is a control of the same cost: the network's own rule with as many steps
# as all widths have together.

# %%
found = attacked.evaluated()

# %%
_, own, *others = swept
rows = accuracy.mean_rows(found)
rows += accuracy.contrast_rows(found, [(other, own) for other in others])
rows += accuracy.pass_rows(found) + accuracy.accuracy_rows(found)
record = run.save(rows)
artifacts.draw(record)

# %% [markdown]
# The lowest point of a curve is the width that breaks most. Look whether it lies far from γ = 1. The dashed line is
# the worst case of all rules, image by image; the dotted one is the network's own rule with as many passes. Only where
# the dashed line lies below the dotted one does the width matter, and not the number of tries. The best single width is
# chosen on the images that it is measured on, so it looks a point or two better than it is.
#
# ## The table
# Accuracy with its interval and the forward and backward passes per image; then the change against the network's own
# rule with the same number of steps, on the same images.

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
