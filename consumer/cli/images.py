"""Commands that ask the encoder about image files: `seenit compare` and `embed`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps

from consumer.cli.common import open_encoder
from consumer.cli.console import out
from consumer.errors import Misconfigured
from consumer.settings import Settings
from consumer.verdicts import Edit
from consumer.verification.draw import side_by_side
from consumer.verification.pair import verify_pair


def compare(
    a: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    b: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    drawing: Annotated[
        Path | None, typer.Option("--draw", help="Draw both, with boxes around what they share, into this file.")
    ] = None,
) -> None:
    """The distance of two image files, whether B is a copy of A, and by which edit. Exits with 1 when it is not.

    As in the service, B may also show A in a part of it, as a screenshot does.
    """
    with open_encoder() as encoder:
        settings = Settings.load()
        info, original = encoder.info, encoder.encode_views(a, settings.decode, within=False)
        views = encoder.encode_views(b, settings.decode)
    pair = verify_pair(info, original, views, settings.match.strictness)
    verification, rule = pair.verification, info.verification_rule
    figures = (
        f"l2 {pair.l2:.4f}{' of a picture within B' if pair.region_index else ''} (at most {info.match_radius_l2:g})"
    )
    if verification is not None and rule is not None:
        least = rule.min_scores[settings.match.strictness]
        evidence = verification.to_evidence(pair.duplicate)
        figures += f", score {verification.score:.3f} (at least {least:g}), {verification.inliers} inliers"
        figures += f", agreement {evidence.agreement}, at least {evidence.least_agreement}, stretch {evidence.stretch}"
        figures += ", mostly writing" if evidence.writing else ""
    out.print(f"{'duplicates' if pair.duplicate else 'different'}: {figures}", highlight=False, soft_wrap=True)
    if pair.duplicate and verification is not None and verification.edit is not None:
        out.print(_in_words(verification.edit), highlight=False, soft_wrap=True)
    if drawing is not None:
        if verification is None:
            raise Misconfigured("there is nothing to draw: the encoder gives no local features")
        with Image.open(a) as left, Image.open(b) as right:
            side_by_side(ImageOps.exif_transpose(left), ImageOps.exif_transpose(right), verification).save(drawing)
    raise typer.Exit(0 if pair.duplicate else 1)


def embed(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    file: Annotated[Path | None, typer.Option("--out", help="Write a .npy file instead of printing JSON.")] = None,
) -> None:
    """The embedding of a picture, as JSON on standard output or as a .npy file."""
    with open_encoder() as encoder:
        vector, info = encoder(picture), encoder.info
    if file is None:
        model = {"name": info.name, "version": info.version}
        sys.stdout.write(json.dumps({"model": model, "embedding": [round(float(x), 6) for x in vector]}) + "\n")
    else:
        np.save(file, vector)
        out.print(f"wrote float32 {list(vector.shape)} to {file}", highlight=False)


def _in_words(edit: Edit) -> str:
    """Describe what was done to the first picture to get the second."""
    mirrored = "mirrored, " if edit.mirrored else ""
    boxes = (
        f"[{box.left:.2f}..{box.right:.2f}] x [{box.top:.2f}..{box.bottom:.2f}]"
        for box in (edit.box_in_upload, edit.box_in_match)
    )
    return (
        f"{mirrored}zoomed {edit.zoom:.2f} times, turned by {round(edit.rotation_deg)} degrees; "
        f"{' of B shows '.join(boxes)} of A, overlap {edit.overlap:.2f}"
    )
