"""Running Chorus: on one machine (the launcher), in containers, on Kubernetes."""

if __name__ != "chorus.deploy":
    raise ImportError("import chorus.deploy instead of deploy, or modules would exist twice")
