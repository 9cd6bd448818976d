# Stands in for the official Prometheus: Debian's server, as nobody, with its data in /prometheus; that one has a wget.
FROM python:3.11.15-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o nobody -g nogroup /prometheus
WORKDIR /prometheus
# hadolint ignore=DL3066
USER nobody
ENTRYPOINT ["prometheus"]
