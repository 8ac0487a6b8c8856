"""`/v1/uploads` and `/v1/images`: events go out, verdicts come back, and every change is in the audit topic."""

import base64
import json
import uuid

import httpx
import pytest

from consumer.http.changes import AuditedChange
from tests.http.pictures import PHOTO, jpeg
from tests.processes import until
from tests.service_fixtures import Service


def found(http: httpx.Client, tenant: str) -> list[str]:
    """The image ids that the photograph matches."""
    headers = {"content-type": "image/jpeg"}
    matches = http.post("/v1/lookup", params={"tenant": tenant}, content=jpeg(PHOTO), headers=headers).json()["matches"]
    return [match["image_id"] for match in matches]


def test_an_upload_is_processed_and_its_verdict_read_back(http: httpx.Client, uploads: Service) -> None:
    image_id = f"s3://bucket/folder/{uuid.uuid4().hex} ä.jpg"
    until(lambda: http.get(f"/v1/images/{image_id}").status_code == 404, 30, "the verdicts are not read")
    reply = http.post("/v1/uploads", json={"image_id": image_id, "data_base64": base64.b64encode(jpeg(PHOTO)).decode()})
    assert reply.status_code == 202, reply.text
    verdict = uploads.await_verdict(image_id)
    until(lambda: http.get(f"/v1/images/{image_id}").status_code == 200, 30, "no verdict can be read")
    assert http.get(f"/v1/images/{image_id}").json() == json.loads(verdict.model_dump_json())


def test_a_picture_is_uploaded_as_the_body_and_forgotten(http: httpx.Client, uploads: Service) -> None:
    image_id, tenant = f"body-{uuid.uuid4().hex[:8]}", "a tenant"
    params = {"image_id": image_id, "tenant": tenant}
    reply = http.post("/v1/uploads", params=params, content=jpeg(PHOTO), headers={"content-type": "image/jpeg"})
    assert reply.status_code == 202, reply.text
    assert uploads.await_verdict(image_id).tenant == tenant
    assert found(http, tenant) == [image_id]

    def status() -> int:
        return http.get(f"/v1/images/{image_id}", params={"tenant": tenant}).status_code

    until(lambda: status() == 200, 30, "no verdict can be read")
    assert http.delete(f"/v1/images/{image_id}", params={"tenant": tenant}).status_code == 202
    until(lambda: found(http, tenant) == [], 30, "the picture is still found")
    until(lambda: status() == 404, 30, "the verdict on a deleted picture is still told")
    audited = [
        AuditedChange.model_validate_json(message.value() or b"")
        for message in uploads.messages(uploads.kafka.audit_topic, 3)
    ]
    mine = [(each.action, each.tenant, each.by) for each in audited if each.subject == image_id]
    assert mine == [("image.uploaded", tenant, "anybody"), ("image.deleted", tenant, "anybody")]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"{}", "application/json", 422, "invalid-request"),
        (b"[" * 100_000, "application/json", 422, "invalid-request"),
        (b'{"image_id": "a"}', "application/json", 422, "invalid-request"),
        (b"picture", "image/jpeg", 422, "invalid-request"),
        (b"picture", "text/plain", 415, "wrong-content-type"),
    ],
)
def test_what_no_upload_is_made_of_is_refused(
    http: httpx.Client, body: bytes, content_type: str, status: int, reason: str
) -> None:
    reply = http.post("/v1/uploads", content=body, headers={"content-type": content_type})
    assert (reply.status_code, reply.json()["reason"]) == (status, reason)
