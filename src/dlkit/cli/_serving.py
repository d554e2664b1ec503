"""The command that answers requests: `serve`."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from dlkit._language import Message
from dlkit.cli._options import DebugFlag, Device, Fuse, JsonFlag
from dlkit.cli._talking import INTERRUPTED, guarded, show, tell

__all__ = ["serve"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", re.IGNORECASE)
_LONGEST_TOKEN = 4096


@guarded
def serve(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Model files; each is named after its file.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines, so set a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clients must send what is in this file as bearer token.")
    ] = None,
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="Maximum size of a request body.")] = "16MB",
    queue: Annotated[
        int, typer.Option(help="Maximum number of waiting inputs; more are refused with 503.", min=1)
    ] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 30.0,
    workers: Annotated[
        int | None, typer.Option(help="Worker threads; by default the cores divided by --threads.", min=1)
    ] = None,
    threads: Annotated[int, typer.Option(help="Torch threads of each worker.", min=1)] = 1,
    batch: Annotated[
        int | None, typer.Option(help="Single inputs computed together; 1 gives the same bits under any load.", min=1)
    ] = None,
    fuse: Fuse = False,
    device: Device = "cpu",
    log: Annotated[Literal["all", "errors"], typer.Option(help="Log level, on stderr.")] = "all",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Serve models: a REST API, and a web page at its address.

    A model file that changes is loaded beside the old one, checked, and put in its place. SIGTERM ends the server
    when everything that was begun is answered.

    \b
    Examples:
      dlkit serve runs/photos/model.safetensors
      dlkit serve photos.safetensors prices.safetensors --host 0.0.0.0 --token-file token.txt
      curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/predict
    """
    from dlkit import serving
    from dlkit.artifact.header import model_file
    from dlkit.serving.running import log_to_stderr

    models = [model_file(model) for model in models]
    limits = serving.Limits(body=_bytes(max_body), queue=queue, seconds=timeout)
    token = None if token_file is None else _token(token_file)
    log_to_stderr(errors_only=log == "errors")
    application = serving.app(
        models,
        limits=limits,
        token=token,
        workers=workers,
        threads=threads,
        batch=batch,
        device=device,
        fuse=fuse,
        watch=1.0,
    )
    if token is None and host not in ("127.0.0.1", "::1", "localhost"):
        tell(
            Message(
                "note: everybody who reaches {host} port {port} may ask this server; --token-file keeps others out",
                host=host,
                port=port,
            )
        )
    names = ", ".join(application.models)

    def started(address: str) -> None:
        show(f"{names}: {address}", {"address": address, "models": list(application.models)}, as_json=json)

    if serving.serve(application, host=host, port=port, drain=timeout + 5, started=started) == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"--max-body: {text!r} is not a size such as 16MB or 500kB")
    return int(float(found[1]) * 1000 ** " kmg".index(found[2].lower() or " "))


def _token(path: Path) -> str:
    from dlkit._opening import open_regular

    with open_regular(path, noun="token file") as file:
        text = file.read(_LONGEST_TOKEN + 1)
    token = text.decode("utf-8", "replace").strip()
    if not token or len(text) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable():
        raise typer.BadParameter(f"--token-file: {path} must hold one token, a line of ASCII")
    return token
