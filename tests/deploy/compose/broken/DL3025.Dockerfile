# The shell would be PID 1, and keep SIGTERM to itself.
FROM python:3.11.15-slim-bookworm
ENTRYPOINT chorus learner
