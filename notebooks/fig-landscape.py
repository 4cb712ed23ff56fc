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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-landscape.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-landscape.ipynb)

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
# # Is robustness a smooth valley or a masked gradient?
# **The paper says** that sparse gradients make a spiking network robust. A gradient can also be small or sparse because
# it is *masked*: it points nowhere, an attack that follows it fails, and the network is not robust at all.
#
# **You will see** the loss from an image outwards, along the attack's direction and along a random one, all trainings
# on the same scale; and one image over the plane that both directions span.
#
# **Time:** 20 seconds on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
reach_255: float = 48.0  # how far to walk from the image, either way, in units of 1/255
points: int = 16  # lengths on either side of the image at which the median over images is taken
samples: int = 100  # test images; those are used that all networks classify correctly
images: int = 3  # how many of them are shown one by one
single_points: int = 96  # lengths on either side for these
plane_points: int = 24  # and for the plane, in each of its directions
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.measures import landscape
from paperlib.profiles import selections

run = runs.begin("fig-landscape", globals())
networks = selections.chosen(run.profile, checkpoints, 1)
trained = run.ask(networks)

# %% [markdown]
# The loss is the cross-entropy at x + t·d, clamped to the data's bounds as every attack is. d is the sign of ∇ₓ of the
# loss at x by the network's own backward rule, which is where FGSM goes; or random signs, drawn once for each image. In
# l∞ both have the same length. There is one network of each training, and the images are the same for all: those that
# all of them classify correctly.

# %%
opened = list(run.opened(networks))
alike = landscape.agreed(opened, run.data.test.take(samples))
found = landscape.landscapes(opened, alike, reach_255=reach_255, points=points)

# %%
few = alike.take(min(images, len(alike)))
single = landscape.landscapes(opened, few, reach_255=reach_255, points=single_points)
plane = landscape.landscape_plane(opened, few, reach_255=reach_255, points=plane_points)

# %% [markdown]
# ## What to look at
# Solid is the attack's direction, dashed the random one. Above is the median over images, in the middle a few images
# one by one, below the share that is still classified correctly. The loss has a logarithmic scale, on which that of a
# confident network falls as straight as its logits do; above the dotted line, ln 2, the true class has less than half
# of the probability.
#
# * **A smooth valley:** the solid line climbs steadily to the right, above the dashed one all the way. A robust network
#   is one where it climbs slowly.
# * **A masked gradient:** the solid line stays flat, or falls back, while the dashed one climbs as high or higher.
# * **What this picture cannot see:** it shows two directions alone. That the gradient leads uphill does not say that no
#   other direction leads higher. `tab-masking-checklist` tests this with attacks, among them a search that needs no
#   gradient; a network can look smooth here and fail there.
# * **Stairs** in single images are no mask. A spiking network is constant between the inputs at which a spike comes or
#   goes, so each curve is a staircase; what counts is whether the stairs lead up.
#
# The roughness in the table measures the stairs: it is the share of a path's ups and downs, from the image outwards,
# that cancels out. It is 0 for a climb without a step back, and 100 % where nothing is gained. Along a random
# direction, which is nearly level, most of the little there is cancels in any network.

# %%
arrays = {"curves": landscape.landscape_curves(single), "plane": plane}
record = run.save(landscape.landscape_rows(found), arrays)
artifacts.draw(record)

# %% [markdown]
# ## The plane of both directions
# The first of these images is the cross in the middle. To the right is the attack's direction, upwards the random one;
# at the white line the decision changes. Where the gradient is useful, colours change from left to right. With a masked
# one there would be bright islands anywhere but to the right.

# %%
artifacts.draw(record, "plane")

# %% [markdown]
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
