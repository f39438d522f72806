"""The sweep: hyperparameter search over the focal loss on Ray Tune."""
