"""A small world of Amazon-like chips: which labels a chip has, and how it looks."""
