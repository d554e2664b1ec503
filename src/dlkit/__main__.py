"""`python -m dlkit` is the command `dlkit`."""

from __future__ import annotations

from dlkit.cli import main

if __name__ == "__main__":
    main()
