"""The version of both packages, installed or not; pyproject.toml reads it from here."""

__version__ = "0.1.0"
