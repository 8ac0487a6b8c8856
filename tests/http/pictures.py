"""Pictures that are looked up."""

import io

from PIL import Image
from skimage import data

PHOTO = Image.fromarray(data.astronaut())


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    """Encode a picture as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()
