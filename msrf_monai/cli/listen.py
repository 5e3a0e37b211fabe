"""``msrf-monai listen``: a PACS sends studies, and gets their results back."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msrf_monai.cli.option_groups import with_option_groups
from msrf_monai.cli.pacs import delivery_lines
from msrf_monai.cli.predict_options import BundleArgument, PacsOptions, PredictionOptions
from msrf_monai.cli.running import Ended, Watch, ended_by_signal, exit_code_of, progress_bar
from msrf_monai.errors import ConfigError

if TYPE_CHECKING:
    from msrf_monai.clinical.pacs.courier import Delivered
    from msrf_monai.clinical.pacs.listener import ListenerOptions
    from msrf_monai.clinical.pacs.service import ServiceOptions
    from msrf_monai.clinical.run_options import RunOptions

__all__ = ["app"]

app = typer.Typer(add_completion=False)


@app.command()
@with_option_groups
def listen(
    bundle: BundleArgument,
    prediction: PredictionOptions,
    outward: PacsOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result folder; results of before are kept.")],
    allow: Annotated[
        list[str] | None, typer.Option(metavar="AET", help="AE title that may send here; may be repeated.")
    ] = None,
    any_caller: Annotated[bool, typer.Option("--any-caller", help="Let every AE title send.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network, without encryption.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 11112,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds without a new object after which a study is complete.")
    ] = 10.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Receive DICOM objects by C-STORE, predict each study with a bundle, and send the results on.

    It runs until it gets SIGTERM or Ctrl-C. An object is acknowledged when it is on the disk; what was acknowledged is
    predicted and sent by this run or by the next one on the same folders. Exit code 0: ended as asked; 2: wrong use;
    1: stopped by an error.
    """

    def run() -> int:
        from msrf_monai.clinical.pacs.listener import ListenerOptions
        from msrf_monai.clinical.pacs.service import ServiceOptions
        from msrf_monai.clinical.run_options import RunOptions

        if not allow and not any_caller:
            raise ConfigError("nobody may send: name the peers with --allow AET, or let everybody with --any-caller")
        settings = RunOptions(**{**prediction.settings(), "resume": True})
        outward.check_sends(settings.outputs)
        listening = ListenerOptions(
            aet=outward.aet,
            host=host,
            port=port,
            callers=tuple(allow or ()),
            any_caller=any_caller,
            limits=settings.limits,
        )
        service = ServiceOptions(settle=settle, keep_received=outward.keep_received)
        return _serve(bundle, output, settings, listening, service, outward, quiet=quiet)

    raise typer.Exit(exit_code_of(run, quiet=quiet))


def _serve(
    bundle: Path,
    output: Path,
    settings: RunOptions,
    listening: ListenerOptions,
    options: ServiceOptions,
    outward: PacsOptions,
    *,
    quiet: bool,
) -> int:
    from msrf_monai.clinical.pacs.listener import Listener
    from msrf_monai.clinical.pacs.retry import Backoff
    from msrf_monai.clinical.pacs.service import Service, courier_of, open_inbox
    from msrf_monai.clinical.pipeline import PredictionRun

    stop = threading.Event()
    delivered: list[Delivered] = []
    # a peer that is away keeps the others waiting for no longer than this
    patience = Backoff(give_up_after=60.0)
    with suppress(Ended, KeyboardInterrupt), ended_by_signal(), progress_bar(quiet) as bar:
        watch = Watch(bar, quiet=quiet, is_endless=True)
        with (
            outward.destinations() as destinations,
            open_inbox(outward.received_folder(output)) as inbox,
            PredictionRun(bundle, output, settings, observer=watch) as run,
        ):
            run.begin()
            with courier_of(run, destinations, patience, stop) as courier, Listener(inbox, listening) as listener:
                listener.start()
                if not quiet:
                    typer.echo(f"{listening.aet} listens on {listening.host}:{listener.port}", err=True)
                try:
                    Service(run, inbox, courier, options, stop=stop).serve()
                except (Ended, KeyboardInterrupt):
                    stop.set()
                    listener.close()
                    run.report()
                delivered = courier.delivered if courier else []
    if not quiet:
        for line in delivery_lines(delivered, "the next start"):
            typer.echo(line)
    return 0
