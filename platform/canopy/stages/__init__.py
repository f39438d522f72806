"""The stages of an experiment and the jobs on a finished run, one module each."""
