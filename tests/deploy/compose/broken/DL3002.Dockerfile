# Runs as root.
FROM python:3.11.15-slim-bookworm
USER root
