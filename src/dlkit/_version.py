"""The version: its one place, below all that states it."""

__version__ = "0.1.0"
