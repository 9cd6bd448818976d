"""Running Chorus: on one machine (the launcher), in containers, on Kubernetes."""
