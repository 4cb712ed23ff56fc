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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/thm-ratio.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fthm-ratio.ipynb)

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
# # The ratio theorem: 3 ≤ ρ_adv/ρ_rand ≤ 3·‖∇f_y‖₀
# **The paper says** (C2) that the gap between a network's adversarial and its random vulnerability is bounded by the
# sparsity of the gradient of f_y, the probability of the true class.
#
# **You will see** the linearised ratio of every test image under four trainings, between its two bounds.
#
# **Time:** a few seconds on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
samples: int = 500  # test images
device: str = "auto"  # auto, cpu, cuda or mps

# %%
from IPython.display import Markdown

from paperlib import artifacts, claims, measures, plots, records, tables, theory

run = artifacts.begin("thm-ratio", globals())

# %% [markdown]
# With ε the radius and g = ∇ₓ f_y(x), to first order:
#
# * random: E over δ ~ U[-1, 1]^m of (εδᵀg)² = ε²‖g‖₂²/3, since E[δδᵀ] = I/3;
# * adversarial: the largest (εδᵀg)² with ‖δ‖∞ ≤ 1 is ε²‖g‖₁², at δ = sign g;
# * the ratio is 3‖g‖₁²/‖g‖₂², and ‖g‖₂ ≤ ‖g‖₁ ≤ √‖g‖₀·‖g‖₂ gives both bounds.
#
# The lower bound is met by a single nonzero coordinate, the upper by equal magnitudes. The 3 belongs to uniform noise;
# random signs would give 1. A spiking network is piecewise constant in its input, so g is its **surrogate** gradient:
# this notebook checks the statement in the linear regime, where it must hold for every sample.

# %%
networks = run.profile.all()
test = run.data.test.take(samples)
gradients = {e.key: measures.probability_gradients(e, test, device=device) for e in networks}

# %%
record = run.save(
    [row for e in networks for row in measures.ratio_rows(e, gradients[e.key])],
    arrays={
        training: records.array(theory.linear_ratio(gradients[run.profile.experiments(training)[0].key]))
        for training in run.profile.trainings
    }
    | {"pixels": test.images[0].numel()},
)
plots.draw(record)

# %% [markdown]
# ## The numbers

# %%
Markdown(tables.markdown(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
