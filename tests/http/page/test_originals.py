"""The pictures of uploads, as the page shows them once more."""

import uuid

import numpy as np
from PIL import Image

from tests.http.page.conftest import Site
from tests.http.pictures import jpeg
from tests.processes import until


def test_a_deleted_picture_is_shown_no_more_until_it_is_uploaded_again(site: Site) -> None:
    image_id = f"deleted {uuid.uuid4().hex}"
    noise = np.random.default_rng().integers(0, 255, (8, 8, 3), np.uint8)
    data = jpeg(Image.fromarray(noise).resize((256, 256)))

    def status() -> int:
        return site.client.get("/pictures", params={"image_id": image_id}).status_code

    site.service.picture(image_id, data)
    site.service.await_verdict(image_id)
    until(lambda: status() == 200, 30, "the picture is not shown")
    assert site.client.delete(f"/v1/images/{image_id}").status_code == 202
    until(lambda: status() == 404, 30, "the picture is shown although it was deleted")
    gone = site.client.get("/pictures", params={"image_id": image_id}).json()
    assert gone["reason"] == "picture-gone"
    assert gone["detail"].startswith("It was deleted")
    site.service.picture(image_id, data)
    until(lambda: status() == 200, 30, "the picture is not shown again")
