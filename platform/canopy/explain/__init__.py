"""Where in an image a network sees the evidence for a label."""
