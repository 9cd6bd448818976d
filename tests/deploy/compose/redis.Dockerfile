# Stands in for the official Redis: Debian's server, its user by the same number, and its /data.
FROM python:3.11.15-slim-bookworm
# hadolint ignore=DL3008
RUN groupadd --system --gid 999 redis \
    && useradd --system --uid 999 --gid redis --no-create-home redis \
    && apt-get update \
    && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o redis -g redis /data
WORKDIR /data
# hadolint ignore=DL3066
USER redis
