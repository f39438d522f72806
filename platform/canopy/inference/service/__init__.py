"""Models behind HTTP: Ray Serve with FastAPI, a web page, metrics."""
