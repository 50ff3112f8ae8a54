"""The networks: one file per family of architectures, with Hugging Face parameter names."""
