"""Checkpoints of a training: when they are made, their files, how Ray Train stores them."""
