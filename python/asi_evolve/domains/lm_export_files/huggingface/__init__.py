"""The exported language model for Hugging Face Transformers; see README.md."""
