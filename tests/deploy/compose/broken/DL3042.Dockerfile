# pip's cache stays in the layer.
FROM python:3.11.15-slim-bookworm
RUN pip install redis==8.1.0
