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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-ablation.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-ablation.ipynb)

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

# %% [markdown]
# # Does regularising gradient sparsity make networks robust?
# **The paper says** (C3) that SR trains networks that are more robust than vanilla ones, alone and on top of
# adversarial training.
#
# **You will see** the accuracy of four trainings (vanilla, SR, AT, AT+SR) on clean images, under noise, FGSM and PGD at
# three radii, and the differences that SR makes, paired by seed, with their intervals.
#
# **Time:** 3 minutes on trained networks, 8 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: list[float] = [16.0, 32.0, 48.0]  # radii, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 500  # test images
device: str = "auto"  # auto, cpu, cuda or mps

# %%
from IPython.display import Markdown

from paperlib import artifacts, evaluations, findings, measures, plots, protocols, tables

run = artifacts.begin("tab-ablation", globals())

# %% [markdown]
# SR adds to the cross-entropy λ times the mean of ((p(x + h·d) - p(x))/h)², where p is the two-class probability of the
# true class against its runner-up and d = sign ∇ₓp: one more pass instead of double back-propagation. AT replaces each
# batch by adversarial examples; AT+SR takes SR's penalty there. Architecture, epochs and learning rate are the same for
# all four; the cost of a step is not (SR needs two forward and three backward passes where vanilla needs one and one).

# %%
networks = run.profile.all()
ladder = protocols.ladder(eps_255, steps=pgd_steps)
found = evaluations.evaluated(networks, ladder, samples=samples, device=device)

# %%
record = run.save(
    measures.mean_rows(found)
    + measures.difference_rows(found, "sr", "vanilla")
    + measures.difference_rows(found, "at+sr", "at")
    + measures.accuracy_rows(found)
)
plots.draw(record)

# %% [markdown]
# ## The table
# Mean accuracy over seeds with its 95 % t interval; then what SR changed, seed by seed.

# %%
Markdown(tables.markdown(record))

# %% [markdown]
# ## What was found

# %%
Markdown(findings.finding(record))
