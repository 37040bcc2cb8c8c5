# The lock file is resolved and tested for Python 3.11. Pass an image by digest to pin it.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# Without pip: the final image gets the program and its dependencies, and no tool that installs more.
RUN python -m venv --without-pip /opt/transcriber
COPY requirements.lock ./
# Wheels only: the build stops at a dependency that would need a compiler. nkeys is pure Python, but has no wheel.
RUN pip --python /opt/transcriber/bin/python install --no-cache-dir \
    --only-binary :all: --no-binary nkeys --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY models ./models
COPY transcriber ./transcriber
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /src/dist . \
    && pip --python /opt/transcriber/bin/python install --no-cache-dir --no-deps --no-index /src/dist/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="transcriber" \
      org.opencontainers.image.description="Speech on NATS in, text on NATS out, within a promised latency and with every second accounted for." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No apt-get: the wheels bundle the libraries that the slim image lacks (libgomp, libsndfile).
COPY --from=build /opt/transcriber /opt/transcriber
# The root file system may be read-only: the install has written the bytecode, and HOME is for temporary files.
# PYTHONFAULTHANDLER makes a crash in native code leave a traceback in the log.
ENV PATH=/opt/transcriber/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1
# Numeric, so that Kubernetes can prove runAsNonRoot.
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# The wheel contains a model. To use another, mount a volume at /models and set WHISPER_MODEL_PATH.
# No HEALTHCHECK: Kubernetes ignores it, and probes /livez and /readyz.
# `run` is the daemon; `gateway` is the other long-running command.
ENTRYPOINT ["transcriber"]
CMD ["run"]
