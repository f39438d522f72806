"""Checkpoints of a training: when, what is in them, how Ray Train keeps them."""
