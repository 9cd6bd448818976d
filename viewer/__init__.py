"""A page over runs: curves, every answer, every token (`chorus view`).

`queries.py` turns filters into questions to DuckDB, `store.py` asks them of a run's parts, `groups.py` and
`overview.py` say what one group and a whole run are, `app.py` serves them, and the page in `static/`. Nothing in a
run's folder is changed.
"""

if __name__ != "chorus.viewer":
    raise ImportError("import chorus.viewer instead of viewer, or modules would exist twice")
