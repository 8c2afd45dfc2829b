"""A trial's network as a folder for the Hugging Face Hub, and back: docs/hub.md."""
