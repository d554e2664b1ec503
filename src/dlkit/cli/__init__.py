"""The command line: `dlkit`, or `python -m dlkit`. It parses and prints; everything it does is a call into dlkit.

=========== ==========================================================================================
`_talking`  results on stdout, everything else on stderr; errors in a sentence; exit codes
`_options`  what several commands take
`projects`  `create`: what `dlkit new` writes, from `templates/`
`_training` `train`, `tune`, `compare`, `demo`
`_models`   `predict`, `evaluate`, `info`, `export`
`_serving`  `serve`
`_data`     `inspect`, `download`, `new`
`app`       the program
=========== ==========================================================================================
"""

from __future__ import annotations

from dlkit.cli.app import app, main

__all__ = ["app", "main"]
