"""Predictions of a model on a set of images: the in-memory form, its files, and hashes of ids."""
