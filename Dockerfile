# Built in one stage, run in another: without a compiler, a package manager, or a user of its own to become.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/tokenbroker UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE openapi.yaml ./
COPY deploy deploy
COPY docs/errors.md docs/errors.md
COPY broker broker
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.13-slim
COPY --from=build /opt/tokenbroker /opt/tokenbroker
# Nothing is written below /: the root file system may be read-only (deploy/base/deployment.yaml says so).
ENV PATH=/opt/tokenbroker/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8443 9090
ENTRYPOINT ["tokenbroker"]
CMD ["serve", "--config", "/etc/tokenbroker/config.yaml"]
