"""The page Calibration: what each strictness finds and what it calls copies wrongly, and where the tenant stands."""

import json
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from consumer.encoder.contract import Strictness
from consumer.http.page.desk import TheVisitor
from consumer.http.page.rendering import render
from consumer.http.parts import ThePart

router = APIRouter(include_in_schema=False)

MEASURED = files("triton_models") / "repository" / "image_encoder" / "calibration.json"
ORDER: tuple[Strictness, ...] = ("strict", "balanced", "eager")
# The chart, in its own units.
LEFT, BOTTOM, WIDTH, HEIGHT = 70, 300, 550, 280


@router.get("/calibration")
async def show(request: Request, parts: ThePart, visitor: TheVisitor) -> Response:
    """Show the points of the served model."""
    model = parts.ready().model
    rule = model.verification_rule
    measured = read_measured(model.version)
    context: dict[str, Any] = {"measured": measured, "points": (), "scale": None}
    if measured is not None:
        low = min(measured["recall"].values()) // 0.1 * 0.1 - 0.1
        right = max(measured["innocence"].values()) * 1.25
        context["scale"] = {"low": low, "right": right}
        context["points"] = [
            {
                "name": name,
                "x": round(LEFT + measured["innocence"][name] / right * WIDTH, 1),
                "y": round(BOTTOM - (measured["recall"][name] - low) / (1 - low) * HEIGHT, 1),
            }
            for name in ORDER
        ]
    return render(
        request,
        "calibration.html",
        visitor,
        page="calibration",
        strictness=parts.settings.match.strictness,
        version=model.version,
        min_scores={} if rule is None else {name: rule.min_scores[name] for name in ORDER},
        **context,
    )


def read_measured(version: str) -> dict[str, Any] | None:
    """Read what was measured of a version of the model; None if it is another that was measured."""
    measured: dict[str, Any] = json.loads(MEASURED.read_text())
    return measured if measured["version"] == version else None
