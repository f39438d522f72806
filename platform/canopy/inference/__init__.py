"""A finished run as one model: load it, predict with it."""
