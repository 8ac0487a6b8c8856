"""The page Try: two pictures compared, or one looked up; nothing is stored."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from consumer.errors import Unavailable, Unprocessable
from consumer.http.bodies import read_form
from consumer.http.lookups import compare_files
from consumer.http.models import LookupMatch
from consumer.http.page.desk import TheVisitor, check_form
from consumer.http.page.rendering import render
from consumer.http.parts import ThePart
from consumer.http.problems import Refused, say_away

router = APIRouter(include_in_schema=False)

MAX_MATCHES = 6


@router.get("/try")
async def show(request: Request, visitor: TheVisitor) -> Response:
    """Ask for pictures."""
    return render(request, "try.html", visitor, page="try")


@router.post("/try", dependencies=[Depends(check_form)])
async def compare(request: Request, parts: ThePart, visitor: TheVisitor) -> Response:
    """Compare both pictures, or look the first up if there is no second."""
    try:
        parts.ready()
        files = await read_form(request, "first", "second", optional="second")
        async with parts.slot():
            first, second = files["first"], files.get("second")
            strictness = parts.settings.match.strictness
            if second is not None:
                result = await compare_files(parts, first, second, strictness)
                return render(request, "_compared.html", visitor, result=result)
            found = await parts.match(first, visitor.tenant, strictness)
        return render(
            request, "_looked_up.html", visitor, matches=[LookupMatch.of(each) for each in found.matches[:MAX_MATCHES]]
        )
    except (Refused, Unprocessable) as error:
        return render(request, "_failed.html", visitor, detail=error.detail)
    except Unavailable as error:
        return render(request, "_failed.html", visitor, detail=say_away(error))
