# make setup | demo | test | test-pins | check | e2e | bench | faults | screenshots; see README.md and CONTRIBUTING.md.

comma := ,
# a Python that really starts (version managers leave stubs that do not)
first_working = $(firstword $(foreach p,$(1),$(shell $(p) -c "import sys; sys.exit(sys.version_info[:2] not in $(2))" >/dev/null 2>&1 && echo $(p))))
PYTHON ?= $(call first_working,python3.11 python3 python $(wildcard $(HOME)/.pyenv/versions/3.11*/bin/python3.11),((3$(comma)11)$(comma)))
PINS_PYTHON ?= $(call first_working,python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10*/bin/python3.10),((3$(comma)10)$(comma)))

VENV := .venv
PINS_VENV := .venv-pins
READY := $(VENV)/.ready-$(shell cat requirements/dev.txt requirements/dev-constraints.txt | cksum | tr -d ' ')
PINS_READY := $(PINS_VENV)/.ready-$(shell cat requirements/pins*.txt | cksum | tr -d ' ')
RUN := $(VENV)/bin/python
NODE_READY := node_modules/.ready-$(shell cat package-lock.json .npmrc | cksum | tr -d ' ')
SOURCES := lib_lora scripts tests tools install.py

# tests in as many processes as there are cores, up to four; each computes with one thread
PARALLEL := -n auto --maxprocesses 4

export WEBUI_DIR WEBUI_PYTHON WEBUI_DEVICE PILLOW_HEIF_DIR SD_SCRIPTS_DIR SD_SCRIPTS_PYTHON RECORDINGS_DIR SD15_CHECKPOINT SDXL_CHECKPOINT KOHYA_SS_DIR

.PHONY: setup linter browser demo test test-pins check lint types format e2e bench faults screenshots pins-setup clean

setup: $(READY) linter browser

$(READY):
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed; name it with make PYTHON=..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements/dev.txt -c requirements/dev-constraints.txt
	touch $@

# of JavaScript and CSS; only where npm is there
linter:
	@if command -v npm >/dev/null && [ ! -e $(NODE_READY) ]; then \
		if npm ci --loglevel=error >/dev/null; then touch $(NODE_READY); else echo "The linter of JavaScript and CSS did not come." >&2; fi; \
	fi

# Chromium for the tests of the page: CI gets one, anywhere else it is the user's to install
browser: $(READY)
	@if [ -n "$$CI" ] && ! $(RUN) -m tests.e2e.browser 2>/dev/null; then \
		timeout 300 $(RUN) -m playwright install --with-deps chromium >/dev/null || timeout 300 $(RUN) -m playwright install chromium >/dev/null || \
		echo "Chromium did not come; the tests of the page are skipped." >&2; \
	fi

demo: export DEMO_STARTED := $(shell date +%s)
demo: setup
	@$(RUN) -m tools.demo

test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(PARALLEL) -m "not e2e" --ignore=tests/e2e
	@$(RUN) -m tests.e2e.browser || true

lint: setup
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)
	@if [ -e $(NODE_READY) ]; then npx --no-install biome lint --error-on-warnings; \
	else echo "JavaScript and CSS are not linted: that needs Node.js with npm, and make setup with a way to its registry." >&2; \
		! command -v npm >/dev/null || test -z "$$CI"; fi

types: setup
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

pins-setup:
	@if [ -z "$(PINS_PYTHON)" ]; then \
		echo "The pins lane needs Python 3.10: name one with make PINS_PYTHON=..." >&2; test -z "$$CI"; \
	else $(MAKE) --no-print-directory $(PINS_READY); fi

$(PINS_READY):
	rm -rf $(PINS_VENV)
	$(PINS_PYTHON) -m venv $(PINS_VENV)
	$(PINS_VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements/pins.txt -c requirements/pins-constraints.txt
	$(PINS_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/pins-no-deps.txt
	touch $@

# the webui's exact versions: core, form, and the webui adapter on real ldm classes
test-pins: pins-setup
	@test -z "$(PINS_PYTHON)" || OMP_NUM_THREADS=1 $(PINS_VENV)/bin/python -m pytest $(PARALLEL) -m "not e2e" --ignore=tests/e2e

check: lint types test test-pins
	@if [ -n "$(WEBUI_DIR)" ]; then $(MAKE) --no-print-directory e2e; \
	else echo "e2e: not run, since WEBUI_DIR is not set."; fi

e2e: setup
	@test -n "$(WEBUI_DIR)" || { echo "WEBUI_DIR is not set: make e2e WEBUI_DIR=path/to/stable-diffusion-webui" >&2; exit 1; }
	$(RUN) -m pytest -m e2e tests/e2e

# speed and memory beside the arithmetic limit, and beside sd-scripts where SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON are set;
# with AGAINST beside an older checkout instead: fails where step or peak is more than 1.03 of that one's
bench: setup pins-setup
	@test -n "$(PINS_PYTHON)"
	@$(RUN) -m tools.bench$(if $(AGAINST),.against) $(PINS_VENV)/bin/python $(AGAINST)

# the long fault campaign: all tests that name a case, with its full figures; renews docs/faults.md. With WEBUI_DIR in a real webui too
faults: setup pins-setup
	@test -n "$(PINS_PYTHON)"
	rm -rf build/faults
	@failed=0; \
	if [ -n "$(WEBUI_DIR)" ]; then $(RUN) -m pytest --faults e2e -m "case and e2e" tests/e2e || failed=1; fi; \
	$(PINS_VENV)/bin/python -m pytest --faults pins -m "case and not e2e" --ignore=tests/e2e || failed=1; \
	$(RUN) -m pytest --faults dev -m "case and not e2e" --ignore=tests/e2e || failed=1; \
	exit $$failed

# every state of the tab in build/screenshots: light, dark, on a phone, in Chinese; of a real webui with WEBUI_DIR
screenshots: setup
	@$(RUN) -m tools.screenshots

clean:
	rm -rf $(VENV) $(PINS_VENV) node_modules build .pytest_cache .mypy_cache .ruff_cache
