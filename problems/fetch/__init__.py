"""Public data sets, from where they are published to files of problems in this project's form."""
