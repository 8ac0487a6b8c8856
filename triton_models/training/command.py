"""The command `seenit calibrate`. `consumer.cli` loads this module only when the command is called for."""

from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.common import kafka_settings, triton_settings
from consumer.cli.console import out
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured
from consumer.moderation.decisions import read_decisions
from triton_models.training import calibrate as calibration
from triton_models.training import feedback
from triton_models.training.calibrate_rule import calibrate_rule, write_rule
from triton_models.training.data import list_pictures
from triton_models.training.encoders import ServedEncoder


def calibrate(
    images: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Pictures like those to be judged.")
    ] = None,
    from_feedback: Annotated[
        bool, typer.Option("--from-feedback", help="Instead of pictures, use what people decided about matches.")
    ] = False,
    wrong_share: Annotated[
        float, typer.Option(min=1e-5, max=0.3, help="With feedback: share of the matches named that may be wrong.")
    ] = 0.01,
    accused_share: Annotated[
        float, typer.Option(min=1e-5, max=0.3, help="Share of different pictures that may be called duplicates.")
    ] = 0.01,
    rate: Annotated[
        float,
        typer.Option(
            "--fpr", min=1e-9, max=0.1, help="For encoders without local features: share of unrelated pairs, instead."
        ),
    ] = 1e-6,
    pictures: Annotated[int, typer.Option(min=1, help="Make copies of this many of the pictures, at most.")] = 200,
    results: Annotated[Path, typer.Option("--out", help="Folder for the figures and configurations.")] = Path(
        "out/calibration"
    ),
) -> None:
    """The least scores for your own pictures, from edited copies of them, and the configurations that set them.

    The pictures must all be different. They are compared with each other as uploads are: `balanced` is set to call the
    given share of them duplicates, `strict` a third of it and `eager` three times as many. The folder of the results
    shows what each costs in copies that are not found, and the pictures that are called duplicates first.

    With --from-feedback it proposes least scores by how many of the matches that people decided about were wrong, and
    says how many decisions are missing for a firm answer. It knows nothing of copies that were not found.
    """
    if from_feedback:
        _propose(wrong_share)
        return
    if images is None:
        raise Misconfigured("there is nothing to go by: --images FOLDER, or --from-feedback")
    paths = list_pictures(images)
    with triton_settings() as settings:
        encoder = ServedEncoder(settings)
        try:
            files = _calibrate(paths, encoder, accused_share, rate, pictures, results)
        except ValueError as error:
            raise Misconfigured(str(error)) from None
        finally:
            encoder.client.close()
    for path in files:
        out.print(f"  {path}", highlight=False)


def _propose(wrong_share: float) -> None:
    """Print what follows from the decisions of people, for the model that is served."""
    with triton_settings() as triton, TritonEncoder(triton) as encoder:
        model = encoder.info
    decisions = read_decisions(kafka_settings())
    used = feedback.usable(decisions, model)
    out.print(
        f"{len(used)} decisions on near matches of {model.name} {model.version}; {len(decisions) - len(used)} others "
        "do not count: on exact matches, on pairs that no verdict named, on matches of other models",
        highlight=False,
        soft_wrap=True,
    )
    out.print(feedback.describe(feedback.propose(used, wrong_share)), highlight=False, soft_wrap=True)
    rule = model.verification_rule
    for name, min_score in {} if rule is None else rule.min_scores.items():
        served = feedback.matches_from(used, min_score)
        low, high = served.interval
        out.print(
            f"SEENIT_MATCH_STRICTNESS={name}, as served ({min_score:.4f}): {served.wrong} of {served.decided} wrong "
            f"(95%: {low:.4f} to {high:.4f})",
            highlight=False,
            soft_wrap=True,
        )


def _calibrate(
    paths: list[Path], encoder: ServedEncoder, accused_share: float, rate: float, pictures: int, results: Path
) -> list[Path]:
    """Calibrate what the served model decides by, print it and return the files that were written."""
    if encoder.client.info.verification_rule is None:
        fitted, distances = calibration.calibrate(paths, encoder, rate, pictures)
        out.print(calibration.describe(fitted), highlight=False)
        return calibration.write(fitted, distances, results)
    calibrated, measured = calibrate_rule(paths, encoder, encoder.client.info, accused_share, pictures)
    for name, point in calibrated.points.items():
        low, high = point.called_interval
        out.print(
            f"{name}: min_score_{name} {point.min_score:.4f}, {point.called:.4f} of {calibrated.pictures} different "
            f"pictures called duplicates (95%: {low:.4f} to {high:.4f}), {point.found:.3f} of copies found",
            highlight=False,
        )
    return write_rule(calibrated, measured, results)
