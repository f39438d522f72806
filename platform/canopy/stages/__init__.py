"""The stages of an experiment, one module each with ``key``, ``is_done`` and ``run``; checks, plan, status."""
