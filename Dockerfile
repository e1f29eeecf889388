# Three images from one file: `serve` (the default, without TensorFlow), `train` (everything), and `bulk` (Dask's
# scheduler and workers, and bulk.py).
#   docker build -t digits .                    docker build -t digits-train --target train .
#                                               docker build -t digits-bulk --target bulk .
ARG PYTHON=3.11-slim-bookworm

# --- packages, in layers of their own: a change of code rebuilds none of this -------------------------------
FROM python:${PYTHON} AS packages
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY requirements-serve.txt /
# into a folder of its own, so that the image gets the packages and not what installed them
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes --target /packages -r /requirements-serve.txt
# out with symbols that only a debugger reads (ml_dtypes alone has 23 MB; what wheels bundle in *.libs was patched
# after it was linked, which strip may break), with LiteRT's ways to a GPU and to phones' chips, with what builds
# packages, and with tests
RUN find /packages -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm -rf /packages/ai_edge_litert/libLiteRt*Accelerator.so /packages/ai_edge_litert/vendors \
    && rm -rf /packages/ai_edge_litert/tools /packages/numpy/distutils /packages/numpy/f2py /packages/gevent/testing \
    && find /packages -name tests -type d -prune -exec rm -r {} +

# --- train: `docker compose run --rm train` ------------------------------------------------------------------
FROM python:${PYTHON} AS train
# DVC works in a git repository
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes -r /requirements.txt
# any user may run it: the caller's own, so that what it writes belongs to the caller
# (DVC asks for that user's name, which the image does not know)
ENV HOME=/tmp USER=caller LOGNAME=caller PYTHONUNBUFFERED=1 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
WORKDIR /pipeline
CMD ["dvc", "repro"]

# --- bulk: `docker compose --profile bulk up` ----------------------------------------------------------------
FROM python:${PYTHON} AS bulk
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin digits
COPY requirements-bulk.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --quiet --disable-pip-version-check --require-hashes -r /requirements-bulk.txt
# any user may run it; Dask looks for its settings in the user's folder
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY models models
COPY digits/__init__.py digits/model.py digits/
COPY digits/imaging digits/imaging
COPY digits/reading digits/reading
COPY digits/bulk digits/bulk
COPY bulk.py ./
VOLUME ["/tmp"]
USER 10001:10001
ENTRYPOINT ["python"]
CMD ["bulk.py", "--help"]

# --- serve ---------------------------------------------------------------------------------------------------
FROM python:${PYTHON} AS serve
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin digits
COPY --from=packages /packages /packages
ENV PYTHONPATH=/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=5000
WORKDIR /app
COPY models models
COPY digits/__init__.py digits/model.py digits/logs.py digits/
COPY digits/imaging digits/imaging
COPY digits/reading digits/reading
COPY digits/serving digits/serving
COPY digits/server digits/server
COPY app.py gunicorn.conf.py predicted.py sample_request.json ./
# on Fargate a volume takes its rights from the image: /tmp stays writable for everyone
VOLUME ["/tmp"]
USER 10001:10001
EXPOSE 5000
# asked after 2 s for the first time: a new container is known to be well at once
HEALTHCHECK --interval=2s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-S", "-c", "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "gunicorn", "app:app"]
# last, as each commit has others; `make image` fills them in
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="digits" \
      org.opencontainers.image.description="Handwritten digits over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
