# The package lists stay in the layer.
FROM python:3.11.15-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends tini=0.19.0-1
