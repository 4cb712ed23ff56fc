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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-poisson-eot.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-poisson-eot.ipynb)

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
# # Does random input defend a network, or does it only confuse the attack?
# **The paper's code** also builds networks with random input (Poisson encoding), and attacks them in a loop of ten
# draws, as one does to attack their expectation (EOT). But in that loop each draw overwrites the one before.
#
# **You will see** networks whose input is random spikes under PGD with one draw per gradient, with the released loop of
# ten draws, and with the mean over ten draws, side by side with the passes that each costs.
#
# **Time:** 1 minute on trained networks, 2 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
trainings: list[str] = ["vanilla", "sr"]  # which of its trainings, with Poisson input
seeds: int = 3  # of each training the first so many networks
eps_255: float = 32.0  # radius of every attack, in units of 1/255
draws: list[int] = [10]  # of the input, for each gradient
pgd_steps: int = 10  # steps of PGD, each of length 2.5 ε / steps
redraws: int = 20  # times that clean images are classified anew
samples: int = 50  # test images
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of these
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, clean
from paperlib.profiles import selections

run = runs.begin("tab-poisson-eot", globals())
networks = selections.poisson(run.profile, trainings, seeds, checkpoints)
attacked = run.ask(networks, protocols.expectations(eps_255, draws, steps=pgd_steps), samples=samples)

# %% [markdown]
# **Poisson input:** in each of T steps a pixel of brightness p fires with probability p, so the network sees T frames
# of random zeros and ones, other ones at every call. The frame is a step function of the image; its gradient is taken
# **straight through**, ∂frame/∂image = 1, as if the pixel itself had been shown.
#
# **EOT**, expectation over transformation (arXiv 1707.07397, 1802.00420): the attacker wants to raise the *expected*
# loss over all draws, but one backward pass gives the gradient for one draw, which is the expected gradient plus the
# noise of that draw. PGD takes only the gradient's signs, and the noise decides those of all but the clearest pixels.
# The mean over k draws has 1/k of the noise's variance, at k times the cost.
#
# **The released loop** runs the network ten times and differentiates the last output. That is one draw, made after nine
# others were thrown away: the same distribution as one draw, so it cannot help, whatever it costs.

# %%
compared = protocols.expectation_pairs(eps_255, draws, steps=pgd_steps)
found = attacked.evaluated()

# %%
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.contrast_rows(found, compared)
    + clean.redraw_rows(run.opened(networks), run.data.test.take(samples), draws=redraws)
    + accuracy.pass_rows(found)
    + accuracy.accuracy_rows(found)
)
artifacts.draw(record)

# %% [markdown]
# Every attack runs all its steps (on a network that draws anew, a misclassified iterate may be right the next time) and
# is judged by one fresh draw. So these numbers are themselves random, and the difference between one draw and the
# released loop shows how much: the two are draws from the same distribution.
#
# ## The table
# Accuracy with its interval and the forward and backward passes per image; then the differences on the same images, as
# the mean over seeds; then network by network, with how much a clean accuracy differs from draw to draw, and the share
# of clean images that are **undecided**, right in some draws and wrong in others. Numbers marked † come from attacks
# whose every gradient is one draw: a random network needs the expectation, so they overstate its robustness.

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
