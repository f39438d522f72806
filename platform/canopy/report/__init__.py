"""One page that a person wants to look at."""
