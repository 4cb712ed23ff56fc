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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/prop-finite-difference.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fprop-finite-difference.ipynb)

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
# # The finite-difference proposition: ‖∇f_y‖₁ from two forward passes
# **The paper uses** ‖g‖₁ = dᵀg ≈ (f_y(x + h·d) - f_y(x))/h with d = sign g, so that training needs no double
# back-propagation.
#
# **You will see**, over h, how well that quotient of the *spiking* network follows the l1 norm of its *surrogate*
# gradient: the two come from different functions, so nothing forces them to agree.
#
# **Time:** a few seconds on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
trainings: list[str] = ["vanilla", "sr"]  # which of its trainings are looked at, first seed each
steps: list[float] = [1e-05, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1]  # values of h, in units of the image's range
samples: int = 500  # test images
device: str = "auto"  # auto, cpu, cuda or mps

# %%
from IPython.display import Markdown

from paperlib import artifacts, claims, measures, plots, tables

run = artifacts.begin("prop-finite-difference", globals())

# %% [markdown]
# For a smooth f the quotient errs by (h/2)·dᵀ∇²f d. A spiking network with direct encoding is piecewise constant: for
# tiny h most images do not change a single spike, the quotient is 0 for these and huge for the few that cross a
# threshold. Between that and curvature there may be a window in which it is a proxy; SR trains with h = 0.01.

# %%
networks = [run.profile.experiments(training)[0] for training in trainings]
test = run.data.test.take(samples)
rows = [row for e in networks for row in measures.quotient_rows(e, test, steps, scheme="forward", device=device)]

# %%
record = run.save(rows, arrays={"used_h": run.profile.trainings["sr"]["h"]})
plots.draw(record)

# %% [markdown]
# ## The numbers

# %%
Markdown(tables.markdown(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
