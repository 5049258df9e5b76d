"""`raylora ui`: MLflow's own pages of what was tracked."""

import signal
import threading
import webbrowser

import click

from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import emit, note
from raylora.cli.tracked import store_uri
from raylora.config.credentials import shown


@click.command("ui")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=5000,
    show_default=True,
    help="Where to listen; another one is taken where it is not free.",
)
@click.option("--open", "opens", is_flag=True, help="Show it in the browser.")
@tracking_option
@output_option
def command(port: int, opens: bool, tracking_uri: str | None, outputs: str, output: str) -> None:
    """Serve MLflow's pages of the store on this machine until Ctrl-C; print their address.

    A server that serves the store already is used and left running, and so is the one that
    --tracking-uri names.
    """
    from raylora.tracking.ui_server import running, serving

    uri = store_uri(tracking_uri, outputs)
    if uri.startswith(("http://", "https://")):
        _say(shown(uri), opens, output)
        return
    if (found := running(uri)) is not None:
        _say(found.url, opens, output)
        return
    note("starting MLflow's server...")
    with serving(uri, port) as server:
        _say(server.url, opens, output)
        note("Ctrl-C stops it")
        _until_interrupted()


def _say(url: str, opens: bool, output: str) -> None:
    emit({"url": url}, output, url)
    if opens:
        webbrowser.open(url)


def _until_interrupted() -> None:
    over = threading.Event()

    def end(signum: int, frame: object) -> None:
        over.set()

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, end)
    over.wait()
