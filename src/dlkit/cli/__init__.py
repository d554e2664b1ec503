"""The command line: `dlkit`, or `python -m dlkit`. It parses and prints; everything it does is a call into dlkit."""

from __future__ import annotations

from dlkit.cli.app import app, main

__all__ = ["app", "main"]
