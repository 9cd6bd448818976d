# The learner and the generator on NVIDIA GPUs, both on vLLM's official image: one torch and one NCCL on either end of the
# weight broadcast, and one base to pull. Its tag is the version of vllm in pyproject.toml. From the repository's root:
#
#     docker build -f deploy/docker/gpu.Dockerfile --target learner -t chorus-learner:gpu .
#     docker build -f deploy/docker/gpu.Dockerfile --target generator -t chorus-generator:gpu .

FROM vllm/vllm-openai:v0.32.0 AS packages
WORKDIR /build
ENV PIP_CACHE_DIR=/build/.cache/pip
COPY deploy/docker/requirements.py pyproject.toml requirements-cpu.lock ./
# Nothing that the base brought is replaced: its own versions are the constraints, and only what it lacks is added.
RUN --mount=type=cache,target=/build/.cache/pip \
    python3 -m pip list --format=freeze > base.txt \
    && python3 -m venv --system-site-packages --without-pip /opt/venv \
    && python3 requirements.py extras learner hub > wanted.txt \
    && python3 -m pip --python /opt/venv/bin/python install --constraint base.txt --requirement wanted.txt

# Apart from its packages, so that a change of the code is a small layer.
FROM packages AS code
COPY . /src
RUN --mount=type=cache,target=/build/.cache/pip \
    PIP_CONSTRAINT=/build/requirements-cpu.lock \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --target /opt/chorus /src

FROM vllm/vllm-openai:v0.32.0 AS base
# The distribution removes a package's old versions from its mirrors: the base is what is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /tmp --no-create-home chorus \
    # A new named volume takes its owner from the folder that it is mounted on.
    && install -d -o 10001 -g 10001 /runs /models /kernels
COPY --from=packages /opt/venv /opt/venv
COPY --from=code /opt/chorus /opt/chorus
# HOME: what vLLM, torch and triton cache goes below it, and the root of the file system may be read-only.
ENV PATH=/opt/chorus/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/chorus \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /chorus
COPY recipes recipes
# By number: Kubernetes can tell from a number alone that it is not root.
USER 10001:10001
ENTRYPOINT ["tini", "--", "chorus"]

FROM base AS learner
# Set here, so that the check below asks where the learner listens, whatever the recipe says.
ENV CHORUS_LEARNER__METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9100/metrics', timeout=4)"]
CMD ["learner", "--help"]

FROM base AS generator
ENV CHORUS_GENERATOR__METRICS_PORT=9101
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9101/metrics', timeout=4)"]
CMD ["generator", "--help"]
