"""The command `seenit calibrate`. `consumer.cli` loads this module only when the command is called for."""

from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.common import triton_settings
from consumer.cli.console import out
from consumer.errors import Misconfigured
from triton_models.training import calibrate as calibration
from triton_models.training.data import list_pictures
from triton_models.training.encoders import ServedEncoder


def calibrate(
    images: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Pictures like those to be judged.")],
    rate: Annotated[
        float, typer.Option("--fpr", min=1e-9, max=0.1, help="Share of unrelated pairs that may count as the same.")
    ] = 1e-6,
    pictures: Annotated[int, typer.Option(min=1, help="Make copies of this many of the pictures, at most.")] = 500,
    results: Annotated[Path, typer.Option("--out", help="Folder for the figures and configurations.")] = Path(
        "out/calibration"
    ),
) -> None:
    """The threshold for your own pictures, from edited copies of them, and the configurations that put it in force."""
    with triton_settings() as settings:
        encoder = ServedEncoder(settings)
        try:
            fitted, measured = calibration.calibrate(list_pictures(images), encoder, rate, pictures)
        except ValueError as error:
            raise Misconfigured(str(error)) from None
        finally:
            encoder.client.close()
    low, high = fitted.threshold_interval
    out.print(
        f"threshold_l2 {fitted.threshold_l2:.4f} (95%: {low:.4f} to {high:.4f}) "
        f"at {rate:g} of {fitted.pairs:.2g} pairs, finding {fitted.recall:.3f} of copies",
        highlight=False,
    )
    for path in calibration.write(fitted, measured, results):
        out.print(f"  {path}", highlight=False)
