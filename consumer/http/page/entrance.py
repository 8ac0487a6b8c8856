"""Signing in, at a provider or with a key or a token, and signing out."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from consumer.http.changes import not_set_up
from consumer.http.page.desk import Desk, TheDesk, check_form, visitor_id
from consumer.http.page.provider_sign_in import BACK, ProviderSignIn
from consumer.http.page.rendering import own_page, render
from consumer.http.page.sessions import FLOW_COOKIE, ID_COOKIE, SESSION_COOKIE, set_cookie
from consumer.http.parts import ThePart
from consumer.http.problems import Refused

router = APIRouter(include_in_schema=False)


def back_to(request: Request) -> str:
    """The query that brings a visitor back to a page, after signing in."""
    return urlencode({"next": f"{request.url.path}?{request.url.query}" if request.method == "GET" else "/"})


@router.get("/sign-in")
async def ask(request: Request, desk: TheDesk, next: str = "/", wrong: bool = False) -> Response:  # noqa: A002 (its name in the address)
    """Ask for a key."""
    known, is_new = visitor_id(request)
    status = HTTPStatus.FORBIDDEN if wrong else HTTPStatus.OK
    context = {"token": desk.sessions.token(known), "next": next, "wrong": wrong, "page": ""}
    has_provider = desk.provider_sign_in is not None
    response = render(request, "sign_in.html", None, status, has_provider=has_provider, **context)
    if is_new:
        set_cookie(response, ID_COOKIE, known, secure=False)
    return response


@router.post("/sign-in", dependencies=[Depends(check_form)])
async def sign_in(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    key: Annotated[str, Form(max_length=8192)],
    next: Annotated[str, Form()] = "/",  # noqa: A002 (its name in the form)
) -> Response:
    """Open a session for whoever has a key or a token."""
    try:
        caller = await parts.access.bearer(key.strip())
        parts.access.count(caller)
        caller.require("read")
    except Refused:
        return await ask(request, desk, next, wrong=True)
    response = RedirectResponse(own_page(next), 303)
    set_cookie(response, SESSION_COOKIE, await desk.sessions.open(caller, key.strip()), secure=True)
    return response


@router.get("/sign-in/provider")
async def go_to_provider(desk: TheDesk, next: str = "/") -> Response:  # noqa: A002 (its name in the address)
    """Send the visitor to the provider."""
    flow = await _provider(desk).begin(own_page(next))
    response = RedirectResponse(flow.url, 303)
    set_cookie(response, FLOW_COOKIE, flow.cookie, secure=True, lax=True)
    return response


@router.get(BACK)
async def come_back(request: Request, desk: TheDesk, parts: ThePart) -> Response:
    """Open a session for whoever the provider knows."""
    caller, next_page = await _provider(desk).finish(request.query_params, request.cookies.get(FLOW_COOKIE, ""))
    parts.access.count(caller)
    caller.require("read")
    response = render(request, "signed_in.html", None, next=next_page, page="")
    set_cookie(response, SESSION_COOKIE, await desk.sessions.open(caller), secure=True)
    response.delete_cookie(FLOW_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.post("/sign-out", dependencies=[Depends(check_form)])
async def sign_out(request: Request, desk: TheDesk) -> Response:
    """End the session, in this browser and wherever its cookie was copied to."""
    await desk.sessions.close(request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


def _provider(desk: Desk) -> ProviderSignIn:
    if desk.provider_sign_in is None:
        raise not_set_up("SEENIT_SERVE_OIDC_CLIENT_ID")
    return desk.provider_sign_in
