"""What a training reports while it runs: progress files, Ray metrics, TensorBoard, MLflow, the live table."""
