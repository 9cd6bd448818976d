"""The HTTP interface: routes, schemas, limits and metrics."""
