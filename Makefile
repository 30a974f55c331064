# One lock file, one environment: both targets start at once when .venv is there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# `make setup TORCH=cpu` takes the build for processors from torch's own index; else pip takes what it is set up for.
TORCH       ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# The newest Python that every locked package has wheels for, its lock and its environment.
NEWEST        := 3.13
NEWEST_VENV   := .venv-$(NEWEST)
NEWEST_BIN    := $(NEWEST_VENV)/bin
NEWEST_PYTHON ?= $(shell for each in python$(NEWEST) "$$HOME"/.pyenv/versions/$(NEWEST).*/bin/python; do \
	"$$each" -c "" 2>/dev/null && echo "$$each" && break; done)
NEWEST_PYTEST  = $(NEWEST_BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow"

.DELETE_ON_ERROR:
.PHONY: demo test test-newest check lint docs benchmark browser fuzz cases gallery pictures soak setup viewer clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "overtile needs Python 3.11 or newer; run make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(if $(filter cpu,$(TORCH)),grep '^torch==' requirements.lock | $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) --requirement /dev/stdin)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/overtile demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Chromium for the tests of the viewer's page, where it is absent and can be installed; without it they skip.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ] \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	  || echo "Chromium is absent and can't be installed here: the tests of the viewer's page are skipped"

# The viewer's library from its npm package, as the lock file names it; its files are committed, so only to renew them.
viewer:
	mkdir -p build/viewer && cp flows/viewer/package.json flows/viewer/package-lock.json build/viewer
	cd build/viewer && npm ci --ignore-scripts --no-audit --no-fund
	cp build/viewer/node_modules/openseadragon/build/openseadragon/openseadragon.min.js flows/viewer/static/vendor/
	cp build/viewer/node_modules/openseadragon/LICENSE.txt flows/viewer/static/vendor/openseadragon.LICENSE.txt

PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(STAMP) browser
	$(PYTEST) -m "not slow" $(ARGS)

# Tests of `tiling` on the newest Python with the newest packages, where the machine has it; without torch, which
# `tiling` doesn't need.
test-newest:
	$(if $(NEWEST_PYTHON),$(MAKE) --no-print-directory $(NEWEST_VENV)/.installed,\
	  @echo "Python $(NEWEST) is absent: tests on it are left out (make test-newest NEWEST_PYTHON=/path/to/it)")
	$(if $(NEWEST_PYTHON),$(NEWEST_PYTEST) tests/tiling $(ARGS))

$(NEWEST_VENV)/.installed: requirements-$(NEWEST).lock pyproject.toml
	$(NEWEST_PYTHON) -m venv $(NEWEST_VENV)
	grep -v '^torch==' $< | $(NEWEST_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement /dev/stdin
	$(NEWEST_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Lint, types, import contracts and the links of the documentation, then the tests that take long, such as kills at every change and whole command
# lines; `.ci/run` calls it after `make test`.
check: lint docs browser
	$(PYTEST) -m slow $(ARGS)

# The documentation as a site, in build/site; a broken link is an error.
docs: $(STAMP)
	$(BIN)/mkdocs build --strict

# Everything that benchmarks/results/ shows, on this machine; `make benchmark ARGS="contest --rounds 1"` for a part.
benchmark: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

# Mutated images, each opened and read in a process that may die of it: `make fuzz ARGS="--count 20000 --seed 1"`.
fuzz: $(STAMP)
	$(BIN)/python tests/support/fuzz.py $(ARGS)

# Small inputs that have gone wrong once, each through `overtile segment`: right, refused or wrong.
cases: $(STAMP)
	$(BIN)/python tests/support/cases.py $(ARGS)

# The documentation's pictures, taken of real runs below WORK: `make pictures WORK=/data`.
pictures: $(STAMP) browser
	PYTHONPATH=tests/support $(BIN)/python docs/pictures.py --work $(or $(WORK),build/pictures) --docs

# The gallery's notebooks, executed in place; `make gallery ARGS="slide scene"` for some.
gallery: $(STAMP)
	$(BIN)/python docs/gallery.py $(ARGS)

# What takes minutes: 200 random kills in one run, every moment at which the driver can be killed, nodes cut off.
SOAKS = $(shell grep -rl 'mark\.soak' tests --include='test_*.py') \
	tests/deploy/test_container.py tests/system/test_interrupted.py tests/system/test_run_machine.py

soak: $(STAMP)
	OVERTILE_SOAK=1 OVERTILE_ALL_MOMENTS=1 OVERTILE_HYPOTHESIS=soak $(BIN)/python -m pytest --timeout=7200 -s $(SOAKS) $(ARGS)

clean:
	rm -rf $(VENV) $(NEWEST_VENV) runs .pytest_cache .ruff_cache .hypothesis
