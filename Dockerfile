# Three images from one file: `serve` (the default, without TensorFlow), `train` (everything), and `bulk` (Dask's
# scheduler and workers, and bulk.py).
#   docker build -t digits .                    docker build -t digits-train --target train .
#                                               docker build -t digits-bulk --target bulk .
# BASE=python@sha256:... pins it by digest (docs/docker.md)
ARG BASE=python:3.11-slim-bookworm

# --- packages, in their own layers, so that a code change does not rebuild them ------------------------------
FROM ${BASE} AS packages
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY requirements/serve.txt /
# into a separate folder, so that the image gets the packages without pip
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes --target /packages -r /serve.txt
# remove debug symbols (23 MB in ml_dtypes alone; not in *.libs, whose files were patched after linking, so that strip
# may break them), LiteRT's support for GPUs and phones, build tools, and tests
RUN find /packages -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm -rf /packages/ai_edge_litert/libLiteRt*Accelerator.so /packages/ai_edge_litert/vendors \
    && rm -rf /packages/ai_edge_litert/tools /packages/numpy/distutils /packages/numpy/f2py /packages/gevent/testing \
    && find /packages -name tests -type d -prune -exec rm -r {} +

# --- train: `docker compose run --rm train` ------------------------------------------------------------------
FROM ${BASE} AS train
# DVC needs a git repository
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes -r /requirements.txt
# any user may run it, so that the caller owns the files that it writes
# (DVC looks up the user's name, which the image does not know)
ENV HOME=/tmp USER=caller LOGNAME=caller PYTHONUNBUFFERED=1 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
WORKDIR /pipeline
CMD ["dvc", "repro", "evaluate"]

# --- bulk: `docker compose --profile bulk up` ----------------------------------------------------------------
FROM ${BASE} AS bulk
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin digits
COPY requirements/bulk.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes -r /bulk.txt
# any user may run it; Dask looks for its settings in the user's folder
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY models models
COPY digits/*.py digits/
COPY digits/imaging digits/imaging
COPY digits/reading digits/reading
COPY digits/bulk digits/bulk
COPY bulk.py ./
VOLUME ["/tmp"]
USER 10001:10001
ENTRYPOINT ["python"]
CMD ["bulk.py", "--help"]

# --- serve ---------------------------------------------------------------------------------------------------
FROM ${BASE} AS serve
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin digits
COPY --from=packages /packages /packages
ENV PYTHONPATH=/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=5000
WORKDIR /app
COPY models models
COPY digits/*.py digits/
COPY digits/imaging digits/imaging
COPY digits/reading digits/reading
COPY digits/web digits/web
COPY digits/worker digits/worker
COPY app.py gunicorn.conf.py predicted.py sample_request.json ./
# SageMaker starts containers with the argument `serve`, and uses port 8080 or the one that it names
RUN printf '%s\n' '#!/bin/sh' 'PORT="${SAGEMAKER_BIND_TO_PORT:-8080}" exec python -m gunicorn app:app' > /usr/local/bin/serve \
    && chmod 755 /usr/local/bin/serve
# on Fargate a volume gets its permissions from the image, so /tmp stays writable for everyone
VOLUME ["/tmp"]
USER 10001:10001
EXPOSE 5000 8080
# the short interval lets a new container become healthy quickly
HEALTHCHECK --interval=2s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-S", "-c", "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "gunicorn", "app:app"]
# last, because they change with each commit; `make image` sets them
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="digits" \
      org.opencontainers.image.description="Handwritten digits over HTTP" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
