# The stamps of everything that is built lie under build/<profile>/.  Committed files never count as built, so a fresh
# clone builds everything.  The commands write them, with the digests of what they made.
PROFILE ?= laptop
DEVICE  ?= auto
EXECUTOR ?= local
SHELL   := /bin/sh

# PROFILE is the name of one of the files under params/, or empty; EXECUTOR is one of EXECUTORS, or empty.
PROFILES  := $(basename $(notdir $(wildcard params/*.yml)))
EXECUTORS := local dask slurm pbs
GIVEN     := $(value PROFILE)
WHERE     := $(value EXECUTOR)
equal      = $(and $(findstring $1,$2),$(findstring $2,$1))
override PROFILE  := $(strip $(foreach name,$(PROFILES),$(if $(call equal,$(name),$(GIVEN)),$(name))))
override EXECUTOR := $(strip $(foreach name,$(EXECUTORS),$(if $(call equal,$(name),$(WHERE)),$(name))))
# In a dry run no cluster is started.
QUEUE     := $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(filter slurm pbs,$(EXECUTOR)))

# What a user gives is never expanded, and reaches a shell in quotes, by $(call quoted,NAME).
$(foreach name,JOBS DEVICE SCHEDULER REPO OUT IMAGES MINUTES MACHINES KILLS SEED,$(eval override $(name) := $$(value $(name))))
quoted = '$(subst ','\'',$(value $1))'

# Otherwise glibc returns the memory of every large tensor to the system and asks for it again, which takes a seventh of
# a training step.
export MALLOC_MMAP_THRESHOLD_ := 1000000000
export MALLOC_TRIM_THRESHOLD_ := 4000000000

# The commands end when the outermost make has ended, even if that was killed.
ifndef COMPANION_MAKE
export COMPANION_MAKE := $(shell echo $$PPID)
endif

.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDEXPANSION:

# Without PYTHON= the targets are built by an environment of their own, which comes first.
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
# The notebooks are in notebooks/ and in the folders that COMPANION_NOTEBOOKS names; a file with an underscore in its
# name is a module.
SOURCES  := $(foreach source,$(wildcard $(addsuffix /*.py,notebooks $(subst :, ,$(COMPANION_NOTEBOOKS)))),\
              $(if $(findstring _,$(notdir $(source))),,$(source)))
# The longest notebooks come first, so that in the end no core waits for one of them.
NAMES    := $(basename $(notdir $(SOURCES)))
LONGEST  := $(filter fig-attack-ladder tab-ablation tab-events thm-ratio,$(NAMES))
ARTIFACTS := $(LONGEST) $(filter-out $(LONGEST),$(NAMES))
DRAWN    := $(ARTIFACTS:%=$(BUILD)/%.drawn)

# Here as many commands run at once as there are cores; with a cluster, for which they only wait, as many as notebooks.
ifndef JOBS
override JOBS := $(if $(filter local,$(EXECUTOR)),$(shell getconf _NPROCESSORS_ONLN),$(words $(NAMES)))
endif

# Inside `make -jN` the jobserver distributes the cores.
SHARED    = $(if $(QUEUE),-j$(call quoted,JOBS),$(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(call quoted,JOBS)))
MORE      = $(MAKE) --no-print-directory PROFILE=$(PROFILE)

# A queueing system's cluster is started once for everything; the make that is called then finds it as EXECUTOR=dask.
ON        = $(if $(QUEUE),$(if $(READY),$(MORE) $(READY) && )$(RUN) cluster --executor $(QUEUE) --jobs $(call quoted,JOBS) --profile $(PROFILE) -- )$(MORE)
WORKERS   = $(if $(filter local,$(EXECUTOR)),,--executor $(EXECUTOR) --scheduler $(call quoted,SCHEDULER))

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  make <artifact>   one of: $(ARTIFACTS)"
	@echo "PROFILE=$(PROFILE) (there are: $(PROFILES)), PYTHON= to use another interpreter, EXECUTOR= (one of: $(EXECUTORS)) and SCHEDULER= for a cluster, CACHED=1 to take the networks that are kept with the results, DEVICE= for training"

reproduce: known-executor true-stamps  ## rebuild everything of a profile: train, run the notebooks, draw, report
	+@if $(MORE) -q $(BUILD)/report >/dev/null 2>&1; then \
	  echo "Nothing to do: profile $(PROFILE) is up to date. Its report is results/$(PROFILE)/REPORT.md."; \
	else \
	  sed -n 's/^cost: {minutes: \(.*\), disk_mb: \(.*\), download_mb: \(.*\)}/Profile $(PROFILE): about \1 minutes on two cores, \2 MB of disk and \3 MB of download, after installation./p' $(PARAMS); \
	  $(if $(READY),$(MORE) $(READY) &&) { $(ON) -k $(SHARED) $(DRAWN) && $(MORE) $(BUILD)/report; } || \
	  { [ -z "$(READY)" -o -e "$(READY)" ] && $(RUN) report --profile $(PROFILE); exit 1; }; \
	fi

$(ARTIFACTS): %: known-executor true-stamps
	+@$(ON) $(BUILD)/$*.drawn

known-profile:
	@[ "$(PROFILE)" ] || { printf "There is no profile '%s'. Allowed: $(PROFILES).\n" $(call quoted,GIVEN) >&2; exit 2; }

known-executor:
	@[ "$(EXECUTOR)" ] || { printf "There is no executor '%s'. Allowed: $(EXECUTORS).\n" $(call quoted,WHERE) >&2; exit 2; }

# What is gone or was changed since it was made is made again.
true-stamps: known-profile
	+@if [ -d $(BUILD) ] && [ -z "$(READY)" -o -e "$(READY)" ]; then $(RUN) verify --profile $(PROFILE); fi

# The commands that train, execute and draw write the list of the modules that they have loaded to a .d file beside the
# stamp, so that each is called again after a change of one of these modules.
-include $(wildcard $(BUILD)/*.d)

# The missing networks are trained; after most changes there are none.  On a cluster all evaluations follow, in parts,
# before a notebook asks for them; what fails there fails again, and is named, in its notebook.
$(BUILD)/trained: $(PARAMS) $(BASE) $(SOURCES) requirements.lock | $(READY)
	@mkdir -p $(@D)
	@$(if $(CACHED),$(RUN) restore --profile $(PROFILE))
	@$(RUN) train --profile $(PROFILE) --jobs $(call quoted,JOBS) --device $(call quoted,DEVICE) $(WORKERS)
	$(if $(WORKERS),-@$(RUN) evaluate --profile $(PROFILE) --jobs $(call quoted,JOBS) --device $(call quoted,DEVICE) $(WORKERS))

# A notebook is executed again after a change of its source, of its parameters or of a module that it imports.
$(BUILD)/%.done: $$(foreach source,$$(SOURCES),$$(if $$(filter $$*,$$(basename $$(notdir $$(source)))),$$(source))) $(PARAMS) $(BASE) requirements.lock | $(BUILD)/trained $(READY)
	@rm -f $@ $@.d $(@:.done=.drawn)  # so that no older stamps are left if the run fails
	@$(RUN) run $* --profile $(PROFILE) $(WORKERS)

# A figure is drawn again after its notebook was executed, and after a change of its module or of one that this imports.
$(BUILD)/%.drawn: $(BUILD)/%.done
	@$(RUN) draw $* --profile $(PROFILE)

$(BUILD)/report: $(DRAWN) $(wildcard paperlib/artifacts/*.py published/*.csv)
	@$(RUN) report --profile $(PROFILE)

.PRECIOUS: $(BUILD)/%.done $(BUILD)/%.drawn

plan: known-profile $(READY)  ## list the missing trainings and evaluations of a profile, with their time on this machine, and on MACHINES=N
	@$(RUN) plan --profile $(PROFILE) --device $(call quoted,DEVICE) $(if $(MACHINES),--machines $(call quoted,MACHINES))

compare: known-profile $(READY)  ## compare this run with the committed one; ALL=1 lists every number that differs
	@$(RUN) compare --profile $(PROFILE) $(if $(ALL),--all)

certificate: known-profile $(READY)  ## write that comparison, with machine, versions and digests, as a page and codecheck.yml
	@$(RUN) certificate --profile $(PROFILE)

test: $(READY)  ## run the tests
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto

torture: $(READY)  ## kill builds of tiny networks at random moments, KILLS=200 times or more, and compare every byte
	@OMP_NUM_THREADS=1 $(PYTHON) tests/torture.py --kills $(if $(KILLS),$(call quoted,KILLS),200) --seed $(if $(SEED),$(call quoted,SEED),0)

lint: $(READY)  ## check the style, and whether every notebook's twin is up to date
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(RUN) check

bench: $(READY)  ## compare a training step's time and memory with two other implementations, on an idle machine
	$(if $(filter cuda,$(DEVICE)),@$(MORE) gpu PARTS=bench,@COMPANION_ARITHMETIC=native $(PYTHON) benchmarks/bench.py && \
	  COMPANION_ARITHMETIC=native $(PYTHON) benchmarks/accuracy.py)

gpu: $(READY)  ## on a machine with a GPU: check the neuron, time steps, train for MINUTES=10, judge, and report (IMAGES=, OUT=)
	@COMPANION_ARITHMETIC=native $(PYTHON) benchmarks/gpu.py --out $(if $(OUT),$(call quoted,OUT),build/gpu) --minutes $(if $(MINUTES),$(call quoted,MINUTES),10) \
	  $(if $(IMAGES),--images $(call quoted,IMAGES)) $(if $(filter cpu,$(DEVICE)),--device cpu --tiny) $(PARTS)

emulate: $(READY)  ## compute the same few steps on emulated processors of two makers, and compare (needs qemu-user)
	@$(PYTHON) benchmarks/emulate.py

lab: $(READY)  ## open JupyterLab on the notebooks
	@$(PYTHON) -m jupyter lab --ServerApp.root_dir=. notebooks/start-here.ipynb

notebooks: $(READY)  ## copy the outputs of the profile laptop to the committed .ipynb twins
	+@$(ON) PROFILE=laptop $(ARTIFACTS:%=build/laptop/%.done)
	@for artifact in $(ARTIFACTS); do $(RUN) publish $$artifact || exit 1; done
	@$(RUN) keep --profile laptop

links: $(READY)  ## replace the address of the public repository by REPO=owner/name
	@$(RUN) links $(call quoted,REPO)

site: known-profile $(READY)  ## write the site of all notebooks, verdicts and records to build/site, from what is committed
	@$(RUN) site --profile $(PROFILE)

clean:  ## remove what was built; trained networks stay
	rm -rf build

# `unfinished` marks an environment whose installation has not ended.  If it is found, the environment is made anew; pip
# has kept its downloads.
.venv/complete: pyproject.toml requirements.lock
	@if [ -e $@ -o ! -e .venv/unfinished ] && .venv/bin/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	for base in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$base -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$base -m venv --clear .venv; fi; \
	done; \
	echo "No Python 3.11 or newer is on the PATH. Install one, or name one that has the packages: make PYTHON=/path/to/python" >&2; exit 1
	@touch .venv/unfinished
	@.venv/bin/python -m paperlib.environment --install
	@mv .venv/unfinished $@

.PHONY: help reproduce known-profile known-executor true-stamps plan compare certificate test torture lint bench gpu emulate lab notebooks links site clean $(ARTIFACTS)
