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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-gradient-maps.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-gradient-maps.ipynb)

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
# # What do the input gradients look like, and does their sparsity matter?
# **The paper says** (C5) that the sparsity of ∇ₓ f_y, the gradient of the true class's probability by the image, is
# what makes a network robust.
#
# **You will see** that gradient of the same images under the four trainings, with its l1 norm, l2 norm and
# participation number; and, over all networks, two of these sizes against the accuracy under PGD.
#
# **Time:** half a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
images: int = 5  # how many images are shown, the first of the test set
eps_255: float = 32.0  # radius of the attack, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 250  # test images measured and attacked
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, records, runs
from paperlib.artifacts import claims
from paperlib.measures import accuracy, predictors
from paperlib.profiles import selections

run = runs.begin("fig-gradient-maps", globals())
networks = selections.swept(run.profile)
attack = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
attacked = run.ask(networks, [attack], samples=samples)

# %% [markdown]
# Three sizes of a gradient g. ‖g‖₁ is what SR regularises; it shrinks when the network merely becomes less steep.
# The **participation number** ‖g‖₁²/‖g‖₂² says on how many pixels the gradient is spread: it is n where n pixels have
# the same magnitude and the others none. It does not depend on the gradient's scale, lies between 1 and ‖g‖₀, and three
# times it is the theorem's ratio. ‖g‖₀ itself counts exact zeros and is close
# to the number of pixels in floating point, whatever the network.

# %%
test = run.data.test.take(samples)
gradients = {e.key: predictors.probability_gradients(network, test) for e, network in run.opened(networks)}
sparsity = [row for e in networks for row in predictors.sparsity_rows(e, gradients[e.key])]

# %%
robust = attacked.evaluated()

# %%
shown = {training: run.profile.experiments(training)[0] for training in run.profile.trainings}
record = run.save(
    sparsity + predictors.correlation_rows(sparsity, robust) + accuracy.accuracy_rows(robust),
    arrays={
        "images": records.array(test.pixels(slice(images))),
        "maps": {training: records.array(gradients[e.key][:images]) for training, e in shown.items()},
    },
)
artifacts.draw(record)

# %% [markdown]
# A dot on the right is a network. Its size is the median over images; the table and the title give the mean of these
# medians over the networks of a training.
#
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
