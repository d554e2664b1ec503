"""A REST API and a page from a model file: `dlkit serve`, or `app` for your own server. Reaches no training code.

============ =========================================================================================
`limits`     what one client may ask of the server
`refusals`   what is wrong with a request, as a status and a sentence
`served`     a model under a name, its version, and the change to a newer file
`scheduling` one queue, and the threads that compute
`kinds`      what each kind of model takes: one table
`bodies`     from the bytes of a request to inputs
`answers`    from predictions to JSON
`describing` what a model takes and gives, and the document of OpenAPI
`protocol`   the Open Inference Protocol, version 2
`asgi`       a request, a reply, and which function answers which address
`measuring`  what `/metrics` shows
`gate`       what every request passes: limits, token, headers, errors in a sentence, one line in the log
`http`       `app`: the routes
`running`    the process: address, signals, end
============ =========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlkit._doors import door
from dlkit._optional import require

if TYPE_CHECKING:
    from dlkit.serving.http import app as app
    from dlkit.serving.limits import Limits as Limits
    from dlkit.serving.running import serve as serve

__all__, _find, __dir__ = door(
    __name__,
    {
        "Limits": "dlkit.serving.limits",
        "app": "dlkit.serving.http",
        "serve": "dlkit.serving.running",
    },
)


def __getattr__(name: str) -> Any:
    if name in ("app", "serve"):
        for package in ("uvicorn", "python_multipart", "prometheus_client"):
            require(package, extra="serve")
    return _find(name)
