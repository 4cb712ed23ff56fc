# What is built is stamped under build/<profile>/, never by committed files, so a fresh clone builds everything.
PROFILE ?= laptop
JOBS    ?= $(shell getconf _NPROCESSORS_ONLN)
DEVICE  ?= auto
SHELL   := /bin/sh

# glibc would give every large tensor's pages back and fault them in again: a seventh of a training step.
export MALLOC_MMAP_THRESHOLD_ := 1000000000
export MALLOC_TRIM_THRESHOLD_ := 4000000000

.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDEXPANSION:

ifdef PYTHON
READY  :=
else
PYTHON := .venv/bin/python
READY  := .venv/complete
endif

RUN       = $(PYTHON) -m paperlib
BUILD    := build/$(PROFILE)
PARAMS   := params/$(PROFILE).yml
BASE     := $(patsubst %,params/%.yml,$(shell sed -n 's/^base: *//p' $(PARAMS) 2>/dev/null))
# notebooks, ours and those in the folders that COMPANION_NOTEBOOKS names; a name with an underscore is a module's
SOURCES  := $(foreach source,$(wildcard $(addsuffix /*.py,notebooks $(subst :, ,$(COMPANION_NOTEBOOKS)))),\
              $(if $(findstring _,$(notdir $(source))),,$(source)))
# the longest first, so that no core waits for it in the end
NAMES    := $(basename $(notdir $(SOURCES)))
LONGEST  := $(filter fig-attack-ladder tab-ablation tab-events thm-ratio,$(NAMES))
ARTIFACTS := $(LONGEST) $(filter-out $(LONGEST),$(NAMES))
DRAWN    := $(ARTIFACTS:%=$(BUILD)/%.drawn)

# Everything but the drawing wing and the words; one change asks again what is to be trained, and trains only that.
CODE     := $(filter-out paperlib/words.py paperlib/artifacts/%,$(wildcard paperlib/*.py paperlib/*/*.py paperlib/*/*.c))

# Inside `make -jN` the jobserver already shares the cores out.
SHARED    = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
MORE      = $(MAKE) --no-print-directory PROFILE=$(PROFILE)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  make <artifact>   one of: $(ARTIFACTS)"
	@echo "PROFILE=$(PROFILE) (there are: $(basename $(notdir $(wildcard params/*.yml)))), PYTHON= to use another interpreter, CACHED=1 to take kept networks, DEVICE= for training"

reproduce: known-profile  ## rebuild everything of a profile: train, run the notebooks, draw, report
	+@if $(MORE) -q $(BUILD)/report >/dev/null 2>&1; then \
	  echo "Nothing to do: profile $(PROFILE) is up to date. Its report is results/$(PROFILE)/REPORT.md."; \
	else \
	  sed -n 's/^cost: {minutes: \(.*\), disk_mb: \(.*\), download_mb: \(.*\)}/Profile $(PROFILE): about \1 minutes on two cores, \2 MB of disk and \3 MB of download, after installation./p' $(PARAMS); \
	  $(if $(READY),$(MORE) $(READY) &&) { $(MORE) -k $(SHARED) $(DRAWN) && $(MORE) $(BUILD)/report; } || \
	  { [ -z "$(READY)" -o -e "$(READY)" ] && $(RUN) report --profile $(PROFILE); exit 1; }; \
	fi

$(ARTIFACTS): %: known-profile
	+@$(MORE) $(BUILD)/$*.drawn

known-profile:
	@[ -e $(PARAMS) ] || { echo "There is no profile '$(PROFILE)'. Allowed: $(basename $(notdir $(wildcard params/*.yml)))." >&2; exit 2; }

$(BUILD)/trained: $(PARAMS) $(BASE) $(SOURCES) $(CODE) requirements.lock | $(READY)
	@mkdir -p $(@D)
	@$(if $(CACHED),$(RUN) restore --profile $(PROFILE))
	@$(RUN) train --profile $(PROFILE) --jobs $(JOBS) --device $(DEVICE)
	@touch $@

# A notebook is executed again when its source, its parameters or a module that it imports has changed: each run leaves
# the list of its modules in a .d file.
$(BUILD)/%.done: $$(foreach source,$$(SOURCES),$$(if $$(filter $$*,$$(basename $$(notdir $$(source)))),$$(source))) $(PARAMS) $(BASE) requirements.lock | $(BUILD)/trained $(READY)
	@rm -f $@ $@.d $(@:.done=.drawn)  # a failed run leaves no older stamp
	@$(RUN) run $* --profile $(PROFILE)
	@touch $@

# A figure is drawn again when its notebook was executed, or its own module or one that this imports has changed.
$(BUILD)/%.drawn: $(BUILD)/%.done
	@$(RUN) draw $* --profile $(PROFILE)
	@touch $@

-include $(wildcard $(BUILD)/*.d)

$(BUILD)/report: $(DRAWN) $(wildcard paperlib/artifacts/*.py published/*.csv)
	@$(RUN) report --profile $(PROFILE)
	@touch $@

.PRECIOUS: $(BUILD)/%.done $(BUILD)/%.drawn

plan: known-profile $(READY)  ## every training and evaluation of a profile, what is there, what the rest costs here
	@$(RUN) plan --profile $(PROFILE) --device $(DEVICE)

compare: known-profile $(READY)  ## this run against the committed one, number by number
	@$(RUN) compare --profile $(PROFILE)

test: $(READY)  ## run the tests
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto

lint: $(READY)  ## ruff, and whether every notebook's twin is in step
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(RUN) check

bench: $(READY)  ## time and memory of a training step against two other ways of writing it, on an idle machine
	@$(PYTHON) benchmarks/bench.py
	@$(PYTHON) benchmarks/accuracy.py

lab: $(READY)  ## open JupyterLab on the notebooks
	@$(PYTHON) -m jupyter lab notebooks

notebooks: $(READY)  ## put the laptop outputs into the committed .ipynb twins
	+@$(MORE) PROFILE=laptop $(ARTIFACTS:%=build/laptop/%.done)
	@for artifact in $(ARTIFACTS); do $(RUN) publish $$artifact || exit 1; done
	@$(RUN) keep --profile laptop

links: $(READY)  ## point every link at REPO=owner/name
	@$(RUN) links "$(REPO)"

clean:  ## forget what was built; trained networks stay
	rm -rf build

# `unfinished` marks an environment being filled; one left so is made anew (downloads come from pip's cache).
.venv/complete: pyproject.toml requirements.lock
	@if [ -e $@ -o ! -e .venv/unfinished ] && .venv/bin/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	for base in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$base -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$base -m venv --clear .venv; fi; \
	done; \
	echo "No Python 3.11 or newer is on the PATH. Install one, or name one that has the packages: make PYTHON=/path/to/python" >&2; exit 1
	@touch .venv/unfinished
	@.venv/bin/python -m paperlib.environment --install
	@mv .venv/unfinished $@

.PHONY: help reproduce known-profile plan compare test lint bench lab notebooks links clean $(ARTIFACTS)
