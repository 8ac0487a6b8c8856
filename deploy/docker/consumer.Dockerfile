# The consumer: docker build --file deploy/docker/consumer.Dockerfile --tag seenit .   (from the repository's root)
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/seenit
COPY deploy/docker/requirements.lock ./
# Wheels only, each with the hash that the lock names: nothing is compiled, nothing else can slip in.
RUN /opt/seenit/bin/pip install --require-hashes --only-binary :all: --requirement requirements.lock
COPY deploy/docker/build.lock ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY triton_models/__init__.py triton_models/__init__.py
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/seenit/bin/pip install --no-deps dist/*.whl \
 && /opt/seenit/bin/pip uninstall --yes pip \
 && find /opt/seenit -name __pycache__ -prune -exec rm -rf {} +

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/seenit /opt/seenit
ENV PATH=/opt/seenit/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SEENIT_HTTP_HOST=0.0.0.0 SEENIT_HTTP_PORT=9464 SEENIT_LOG_FORMAT=json
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 9464
# Alive, not ready: restarting this process mends no dependency.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/livez', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["seenit"]
CMD ["run"]
