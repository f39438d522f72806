"""The sweep: hyperparameter search over fields of the variants on Ray Tune."""
