"""PDQ hashes, by which exchanges of hashes name pictures: 256 bits that survive a change of size, and hardly a crop."""

import io
import logging

import numpy as np
from PIL import Image

from consumer.images.decode import FORMATS

log = logging.getLogger(__name__)

# Hashes of pictures that show less are alike by chance, as the makers of PDQ say.
MIN_QUALITY = 50
# Larger pictures are made smaller first, which changes a few bits: 2 of 256 at 1600 x 1004 pixels, 4 at 4000 x 3000,
# where the whole would take some five times as long.
MAX_SIDE_PX = 1024


def pdq_hash(data: bytes) -> str:
    """Return the PDQ hash, 64 hexadecimal digits, of a picture that was decoded before; "" if it shows too little."""
    import pdqhash  # noqa: PLC0415  # only where a bank holds such hashes

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
            bits, quality = pdqhash.compute(np.asarray(image.convert("RGB")))
    except Exception as error:  # decoders raise whatever they like
        log.debug("no PDQ hash: %s", error)
        return ""
    return np.packbits(bits).tobytes().hex() if quality >= MIN_QUALITY else ""
