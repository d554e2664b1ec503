"""The program `dlkit` and its commands.

Nothing heavy is imported before a command runs, so that `dlkit --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import dlkit
from dlkit.cli import _cache as cache
from dlkit.cli import _checkpoints as checkpoints
from dlkit.cli import _data as data
from dlkit.cli import _models as models
from dlkit.cli import _serving as serving
from dlkit.cli import _training as training
from dlkit.cli._translating import Command, LangOption, Program

__all__ = ["app", "main"]

app = typer.Typer(
    name="dlkit",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text, in which the examples keep their lines
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for command in (
    training.train,
    training.tune,
    models.predict,
    models.evaluate,
    models.info,
    models.export,
    serving.serve,
    data.inspect,
    training.compare,
    data.download,
    training.demo,
    data.new,
    cache.cache,
    checkpoints.checkpoint,
):
    app.command(cls=Command)(command)


def main() -> None:
    """Run the program `dlkit` with the arguments of the command line, and leave with its exit code.

    0 is success, 1 an error that is told, 2 wrong usage, 130 Ctrl-C and 143 SIGTERM.
    """
    app(prog_name="dlkit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dlkit {dlkit.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    lang: LangOption = None,
) -> None:
    """Train, use and ship PyTorch models from your own data.

    \b
    dlkit inspect photos                    what is in a folder of photos, with a folder for each class
    dlkit train photos --out runs/photos    a pretrained network learns your classes
    dlkit predict runs/photos/model.safetensors new --out predictions.csv
    dlkit serve runs/photos/model.safetensors   a REST API and a page
    dlkit new shop --task tabular           a small project, ready to run
    """
    if context.invoked_subcommand is None:  # a language, and nothing else
        typer.echo(context.get_help())
