# Slipway. `make demo` on a fresh clone is all it takes; `make help` lists the rest.
# Needed: Python >= 3.11 with pip, and make. Everything else comes from the locked requirements.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := environments
MAKEFLAGS += --no-print-directory --no-builtin-rules

MODEL ?= iris
VENV := .venv
SERVING := bentos/.venv
PYTHON ?= python3
# In the newest Python of a machine some wheels are still missing; uv must not fetch another one by itself.
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
test test-unit test-monitoring test-browser: export OMP_NUM_THREADS := 1
test test-unit test-monitoring test-browser: export OPENBLAS_NUM_THREADS := 1

# An environment is up to date when the stamp named after its lock's content exists.
checksum = $(firstword $(shell cat $(1) | sha256sum))
PIPELINE_STAMP := $(VENV)/.synced-$(call checksum,requirements.lock pyproject.toml)
TEST_STAMP := $(VENV)/.tests-$(call checksum,requirements.lock requirements-dev.lock pyproject.toml)
BENCH := tests/bench/.venv
BENCH_STAMPS := $(foreach group,peers mlserver,$(BENCH)/.synced-$(group)-$(call checksum,tests/bench/$(group).lock))
SERVING_STAMP := $(SERVING)/.synced-$(call checksum,bentos/requirements.lock)
UV := $(VENV)/bin/uv
# Progress bars for people; without a terminal the list of 300 packages would bury what matters.
QUIET := $(shell test -t 2 || echo --quiet)
UV_VERSION = $(shell sed -n 's/^uv==\([^ ;]*\).*/\1/p' requirements.lock)
SLIPWAY := $(VENV)/bin/slipway

.PHONY: environments test-environment
environments: $(PIPELINE_STAMP) $(SERVING_STAMP)  ## build both environments from their locks
	@:
test-environment: $(TEST_STAMP) $(SERVING_STAMP)

# Some distributions ship Python without ensurepip; the pip outside of the environment then does its work.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is missing or older than 3.11; install a newer one, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV); }
	@if $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then pip="$(VENV)/bin/python -m pip"; \
	  elif $(PYTHON) -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip --python $(VENV)/bin/python"; \
	  else echo "make: $(PYTHON) has neither ensurepip nor pip; install python3-venv or python3-pip" >&2; rm -rf $(VENV); exit 1; fi; \
	  $$pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

$(PIPELINE_STAMP): | $(UV)
	@echo "pipeline environment: installing what requirements.lock says"
	@rm -f $(VENV)/.synced-* $(VENV)/.tests-*
	@$(UV) pip sync $(QUIET) --python $(VENV)/bin/python requirements.lock
	@$(UV) pip install --python $(VENV)/bin/python --quiet --no-deps --editable .
	@touch $@

$(TEST_STAMP): | $(UV)
	@echo "pipeline environment: installing what requirements.lock and requirements-dev.lock say"
	@rm -f $(VENV)/.synced-* $(VENV)/.tests-*
	@$(UV) pip sync $(QUIET) --python $(VENV)/bin/python requirements.lock requirements-dev.lock
	@$(UV) pip install --python $(VENV)/bin/python --quiet --no-deps --editable .
	@touch $(PIPELINE_STAMP) $@

$(SERVING_STAMP): | $(UV)
	@echo "serving environment: installing what bentos/requirements.lock says"
	@test -x $(SERVING)/bin/python || $(UV) venv --quiet --python $(VENV)/bin/python $(SERVING)
	@rm -f $(SERVING)/.synced-*
	@$(UV) pip sync $(QUIET) --python $(SERVING)/bin/python bentos/requirements.lock
	@touch $@

.PHONY: demo up down status logs doctor train serve
demo: environments  ## the whole loop for MODEL through Airflow, then predictions; leaves the stack running
	@$(SLIPWAY) demo $(MODEL)
up: environments  ## start the stack and wait until all of it answers
	@$(SLIPWAY) up
down: | $(UV)  ## stop the stack; its data stays
	@$(SLIPWAY) down
status: | $(UV)  ## every part of the stack, its state and address
	@$(SLIPWAY) status
logs: | $(UV)  ## the logs of all parts as they grow, or of PART
	@$(SLIPWAY) logs $(PART) --follow
doctor: | $(UV)  ## look for what is wrong with this machine or installation
	@$(SLIPWAY) doctor
train: environments  ## one run of MODEL's training DAG
	@$(SLIPWAY) run $(MODEL)_train --conf '{"reason": "manual"}'
serve: environments  ## the live bento of MODEL, served locally by bentoml
	@$(SLIPWAY) serve $(MODEL)

# --- containers: the same stack from docker-compose.yml, see docs/containers.md; needs Docker, not Python -------------
ENV_FILE ?= $(or $(SLIPWAY_ENV_FILE),.env)
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) --env-file $(ENV_FILE)
DOCKER_SOCKET ?= $(or $(SLIPWAY_DOCKER_SOCKET),/var/run/docker.sock)
.PHONY: compose-build compose-secrets compose-up compose-start compose-down compose-wait monitoring down-volumes
compose-build:  ## build the two images that the containers run from
	@docker build $(foreach arg,PYTHON_IMAGE PIP_INDEX_URL,$(if $($(arg)),--build-arg $(arg))) --tag slipway-serving:local bentos
	@docker build $(foreach arg,PYTHON_IMAGE PIP_INDEX_URL UV_DEFAULT_INDEX,$(if $($(arg)),--build-arg $(arg))) --tag slipway:local .
compose-secrets:  ## generate into .env what secrets it lacks; what is there stays
	@umask 077; touch $(ENV_FILE); lines="$$(docker run --rm -i --network none slipway:local secrets --missing-from - < $(ENV_FILE))"; \
	  grep -q '^SLIPWAY_DOCKER_GROUP=' $(ENV_FILE) || lines="$$lines"$$'\n'"SLIPWAY_DOCKER_GROUP=$$(stat -c %g $(DOCKER_SOCKET))"; \
	  printf '%s\n' "$$lines" | sed '/^$$/d' >> $(ENV_FILE)
compose-up: compose-build compose-secrets  ## build images, make secrets, start the containers, wait until all are healthy
	@$(MAKE) compose-start
compose-start:
	@$(COMPOSE) up --detach
	@$(MAKE) compose-wait
compose-wait:
	@while test $$SECONDS -lt 300; do \
	  waiting=$$($(COMPOSE) ps --quiet | xargs -r docker inspect \
	    --format '{{index .Config.Labels "com.docker.compose.service"}} {{if and .State.Running .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}} {{.State.ExitCode}}{{end}}' \
	    | grep -v -e ' healthy$$' -e ' exited 0$$' -e ' running 0$$' || true); \
	  test -z "$$waiting" && { echo "all containers are healthy"; exit 0; }; sleep 1; done; \
	  echo "not healthy after 5 minutes: $$(echo $$waiting); see $(COMPOSE) logs" >&2; exit 1
compose-down:  ## stop the containers; their data stays
	@$(COMPOSE) --profile full --profile celery stop agent keeper  # which would start the bentos again
	@docker ps --quiet --filter label=slipway.model | xargs -r docker stop >/dev/null
	@docker ps --all --quiet --filter label=slipway.model | xargs -r docker rm --force >/dev/null
	@$(COMPOSE) --profile full --profile celery down
monitoring: compose-secrets  ## start Prometheus, Alertmanager, Grafana and the exporters beside the containers
	@$(COMPOSE) --profile monitoring up --detach
	@$(MAKE) compose-wait
down-volumes:  ## stop the containers and delete all of their data, after a question; YES=1 asks nothing
	@test -n "$(YES)" || { read -r -p "delete all models, predictions and databases of the container stack? [y/N] " a; test "$$a" = y; }
	@$(COMPOSE) --profile full --profile celery stop agent keeper  # which would start the bentos again
	@docker ps --quiet --filter label=slipway.model | xargs -r docker stop >/dev/null
	@docker ps --all --quiet --filter label=slipway.model | xargs -r docker rm --force >/dev/null
	@$(COMPOSE) --profile full --profile celery down --volumes --remove-orphans

# Backups lie in a folder of this machine that belongs to the user of the containers; they hold secrets.
COMPOSE_BACKUPS = $(abspath $(or $(SLIPWAY_COMPOSE_BACKUP_DIR),$(shell sed -n 's/^SLIPWAY_COMPOSE_BACKUP_DIR=//p' $(ENV_FILE) 2>/dev/null),var/compose-backups))
BACKUP_RUN = SLIPWAY_COMPOSE_BACKUP_DIR=$(COMPOSE_BACKUPS) $(COMPOSE) run --rm --no-deps -T backup
OWN_POSTGRES_RUNS = $(COMPOSE) ps --quiet postgres | xargs -r docker inspect --format '{{.State.Running}}' | grep -q true
.PHONY: compose-backup compose-restore compose-backup-folder compose-backup-env compose-is-down compose-read-backups
compose-backup: compose-backup-folder  ## the containers' databases, artefacts, bentos and prediction log into a folder; KEEP=7 deletes older ones
	@if $(OWN_POSTGRES_RUNS); then started=; else started=yes; $(COMPOSE) up --detach postgres; fi; code=0; \
	  $(BACKUP_RUN) backup --env - $(if $(KEEP),--keep $(KEEP)) $(ARGS) < $(ENV_FILE) || code=$$?; \
	  test -z "$$started" || $(COMPOSE) rm --stop --force postgres; exit $$code
compose-restore: compose-is-down compose-backup-env compose-backup-folder  ## put the newest backup, or FROM, in the place of the containers' data, and start; NO_START=1 only does the first
	@$(COMPOSE) up --detach postgres; code=0; $(BACKUP_RUN) restore $(FROM) < /dev/null || code=$$?; \
	  test $$code = 0 -a -z "$(NO_START)" || $(COMPOSE) rm --stop --force postgres; exit $$code
	@test -n "$(NO_START)" || { $(MAKE) compose-start; $(COMPOSE) exec -T keeper slipway restore --await; }
compose-is-down:
	@test -z "$$(docker ps --quiet --filter label=slipway.model)$$($(COMPOSE) ps --quiet keeper 2>/dev/null)" || { \
	  echo "make: the container stack is up; stop it with \`make compose-down\` before a restore" >&2; exit 1; }
compose-read-backups: compose-backup-folder
	@$(BACKUP_RUN) $(ARGS) < /dev/null
compose-backup-folder:
	@docker image inspect slipway:local >/dev/null 2>&1 || { \
	  echo "make: there is no image slipway:local; build it with \`make compose-build\`" >&2; exit 1; }
	@mkdir -p $(COMPOSE_BACKUPS)
	@docker run --rm --network none --user 0:0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE \
	  --volume $(COMPOSE_BACKUPS):/backups --entrypoint sh slipway:local -euc 'chown 10001:10001 /backups; \
	  for one in /backups/*/SHA256SUMS; do test ! -e "$$one" || chown -R 10001:10001 "$${one%/*}"; done'
# A machine without secrets takes those of the backup; the group of the Docker socket is its own.
compose-backup-env: compose-backup-folder
	@test -s $(ENV_FILE) || { umask 077; docker run --rm --network none --volume $(COMPOSE_BACKUPS):/backups:ro \
	  --env SLIPWAY_BACKUP_DIR=/backups slipway:local restore --env $(FROM) | sed '/^SLIPWAY_DOCKER_GROUP=/d' > $(ENV_FILE); }
	@$(MAKE) compose-secrets

.PHONY: backup restore
backup: | $(UV)  ## databases, artefacts, bentos and the prediction log into a folder; KEEP=7 deletes older ones
	@$(SLIPWAY) backup $(if $(KEEP),--keep $(KEEP))
restore: environments  ## put the newest backup, or FROM, in the place of what is there, and start; the stack must be down
	@$(SLIPWAY) restore $(FROM)

.PHONY: bench
bench: environments $(BENCH_STAMPS)  ## measure Slipway beside other servers; BENCH_QUICK=1 takes three minutes
	@PYTHONPATH=include:tests $(VENV)/bin/python -m bench

.PHONY: bench-decisions
bench-decisions: export OMP_NUM_THREADS := 1
bench-decisions: export OPENBLAS_NUM_THREADS := 1
bench-decisions: environments  ## how often drift, gate and retrain decide right; DECISIONS_QUICK=1 takes a tenth of the trials
	@PYTHONPATH=include:tests $(VENV)/bin/python -m decisions

$(BENCH)/.synced-%: | $(UV)
	@group=$(firstword $(subst -, ,$*)); echo "benchmark environment: installing what tests/bench/$$group.lock says"; \
	  test -x $(BENCH)/$$group/bin/python || $(UV) venv --quiet --python $(VENV)/bin/python $(BENCH)/$$group; \
	  rm -f $(BENCH)/.synced-$$group-*; \
	  $(UV) pip sync $(QUIET) --python $(BENCH)/$$group/bin/python tests/bench/$$group.lock
	@touch $@

.PHONY: test test-unit test-monitoring test-compose test-browser bench-cockpit screenshots
.PHONY: faults faults-swaps faults-month faults-log faults-challengers faults-rollback lint lock clean
# What needs programs of the machine has a target of its own.
ELSEWHERE = not monitoring and not compose and not browser
test: lint  ## lint, types and all tests, a real stack included
	@$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not stack and $(ELSEWHERE)"
	@$(VENV)/bin/python -m pytest -m "stack and $(ELSEWHERE)"
test-unit: test-environment  ## the quick tests: no running service, no long replays
	@$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not stack and not services and not slow and $(ELSEWHERE)"
test-monitoring: test-environment $(SERVING_STAMP)  ## rules, alerts and dashboards on a running stack; see docs/monitoring.md
	@$(VENV)/bin/python -m pytest -m monitoring tests/monitoring
test-compose: test-environment  ## the container stack in a Docker daemon of its own; needs root, docker.io and docker-compose
	@$(VENV)/bin/python -m pytest -m compose -x tests/contracts
	@$(VENV)/bin/python -m pytest -m compose -x tests/compose
test-browser: test-environment $(SERVING_STAMP)  ## the cockpit in a headless Chromium; BROWSER_QUICK=1 leaves the whole stack out
	@$(VENV)/bin/python -m pytest -m "browser$(if $(BROWSER_QUICK), and not slow)" tests/browser
COCKPIT = PYTHONPATH=include:plugins:tests $(VENV)/bin/python -W ignore -m
bench-cockpit: test-environment  ## the cockpit's pages with 50 models and 10,000 ledger rows: server times and first views
	@$(COCKPIT) cockpit.speed
screenshots: test-environment  ## pictures of every page, light and dark, into docs/screenshots
	@$(COCKPIT) cockpit.shots
FAULTS = PYTHONPATH=include:bentos:tests $(VENV)/bin/python -m
faults: test-environment $(SERVING_STAMP)  ## kill everything at every phase of a rollout; FAULTS_QUICK=1 takes four minutes, FAULTS_STACKS=2 halves the hours
	@$(FAULTS) faults.rollout_run $(if $(FAULTS_QUICK),--quick,--rounds $(or $(FAULTS_ROUNDS),10) --stacks $(or $(FAULTS_STACKS),1)) $(if $(FAULTS_FRESH),--fresh)
	@$(if $(FAULTS_QUICK),,$(MAKE) faults-swaps faults-month)
faults-swaps: test-environment $(SERVING_STAMP)  ## 200 swaps in a row under 300 requests per second
	@$(FAULTS) faults.swaps --swaps 200 --rate 300
faults-month: test-environment $(SERVING_STAMP)  ## 30 nightly releases in a row, everything bounded
	@$(FAULTS) faults.month --nights 30
faults-challengers: test-environment $(SERVING_STAMP)  ## 20 releases of each of six kinds of challenger, as real bentos
	@$(FAULTS) faults.challengers --repeats 20 $(if $(FAULTS_FRESH),--fresh)
faults-rollback: test-environment $(SERVING_STAMP)  ## 5 warm rollbacks, then 5 warm and 5 cold ones with Airflow and MLflow stopped, timed
	@$(FAULTS) faults.rollbacks --rounds 5
faults-log: test-environment  ## 200,000 predictions while the log's processes are killed 100 times
	@PYTHONPATH=include:bentos:tests $(VENV)/bin/python -m faults.log_run --predictions 200000 --kills 100
.PHONY: dashboards
dashboards: test-environment  ## write Grafana's dashboards from monitoring/grafana/*.py
	@PYTHONPATH=monitoring $(VENV)/bin/python -m grafana
lint: test-environment  ## style and types
	@$(VENV)/bin/ruff check --no-cache .
	@$(VENV)/bin/ruff format --check --no-cache .
	@$(VENV)/bin/mypy

COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	--python-version 3.11
lock: | $(UV)  ## renew all locks from the .in files; UPGRADE=1 takes the newest versions allowed
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements.in --output-file requirements.lock
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements-dev.in --output-file requirements-dev.lock
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements-celery.in --output-file requirements-celery.lock
	@$(COMPILE) $(if $(UPGRADE),--upgrade) bentos/requirements.in --output-file bentos/requirements.lock
	@for group in peers mlserver; do $(COMPILE) $(if $(UPGRADE),--upgrade) tests/bench/$$group.in \
	  --output-file tests/bench/$$group.lock; done
clean:  ## remove all environments and caches; data, secrets and a running stack stay
	@rm -rf $(VENV) $(SERVING) $(BENCH) .ruff_cache .mypy_cache .pytest_cache .hypothesis include/*.egg-info

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | sort | expand -t 20
