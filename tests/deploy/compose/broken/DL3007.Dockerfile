# A base that is another one tomorrow.
FROM python:latest
