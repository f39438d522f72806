"""The stages of an experiment, one module each with ``key``, ``is_done``, ``run``; checks, dry run."""
