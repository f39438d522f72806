"""Sets up Prometheus and Grafana for a Ray cluster: ``canopy monitor``."""
