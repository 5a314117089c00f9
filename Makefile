# Everything runs from a bare checkout; uv is fetched where it is missing.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen

.PHONY: monitoring help needed test chaos soak demo bench lint types imports clean

help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/'

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

.venv/.synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet
	@touch $@

test: .venv/.synced needed ## Lint, types, import contracts, and all tests against a real cluster and a real Vault
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m tests.support.kubebox
	$(RUN) python -m tests.support.prometheus
	$(RUN) pytest

chaos: .venv/.synced ## What fails around the broker, on real processes: what clients see, and how long (part of test, too)
	$(RUN) python -m tests.support.kubebox
	$(RUN) python -m tests.support.prometheus
	timeout --signal=INT --kill-after=60 2100 $(RUN) pytest tests/chaos

soak: .venv/.synced ## Random faults under a mixed load: nothing harmed, nothing grows; MINUTES=10; SOAK_SEED=n draws them again
	$(RUN) python -m tests.support.kubebox
	$(RUN) python -m tests.support.soak --minutes $(or $(MINUTES),10) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

needed:
	@for program in curl jq; do command -v $$program >/dev/null || { \
	  echo "$$program is missing: apt-get install $$program (or your system's line for it)"; exit 1; }; done

demo: .venv/.synced ## The whole story on a real cluster and a real Vault; ONCE=1 ends after it
	$(RUN) python -m demo $(if $(ONCE),--once)

bench: .venv/.synced ## The broker, the API server alone and OpenBao's kubernetes engine, side by side
	$(RUN) python -m bench
	$(RUN) python -m bench.timing
	$(RUN) python -m bench.neighbour
	$(RUN) python -m bench.scale

monitoring: .venv/.synced ## Make the dashboard and the operator's rules anew, from the metrics and rules.yaml
	$(RUN) python -m monitoring

clean: ## Remove what the commands above made in this folder
	rm -rf .venv .uv .demo .soak .mypy_cache .ruff_cache .pytest_cache
