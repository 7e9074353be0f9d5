"""The command line: argv in, text for people (or `--json`) and an exit code out."""
