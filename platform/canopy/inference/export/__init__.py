"""A finished run in other forms: ONNX, a torch program, a folder for the Hugging Face hub."""
