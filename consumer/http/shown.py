"""Pictures as people see them: small JPEGs, made in child processes.

They are of strangers, and may come again and again. So they are fetched and decoded in the sandbox that the service has
for suspects, with all bounds of an upload, and encoded anew: nothing of the file itself reaches a browser, and one that
brings its decoder down takes nothing with it.
"""

import io
from queue import SimpleQueue

import numpy as np
from PIL import Image

from consumer.errors import Unprocessable
from consumer.events import ImageUpload
from consumer.images.sandbox import DecodeSandbox
from consumer.settings import Settings

# Longest side of a picture that is shown.
SIDE_PX = 640
QUALITY = 80
# Child processes, each with some 90 MB once it has been needed.
CHILDREN = 2
# Larger pictures are not shown: children do not know of each other, and the worst picture takes 16 bytes a pixel.
MAX_PIXELS = 25_000_000


class ShownPictures:
    """Makes them, as many at once as there are children. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Starts no child before it is needed."""
        bounded = settings.decode.model_copy(update={"max_pixels": min(MAX_PIXELS, settings.decode.max_pixels)})
        own = settings.model_copy(update={"decode": bounded})
        self._idle: SimpleQueue[DecodeSandbox] = SimpleQueue()
        for _ in range(CHILDREN):
            self._idle.put(DecodeSandbox(SIDE_PX, own))

    def jpeg(self, upload: ImageUpload) -> bytes:
        """Fetch an upload's picture, and make it small. Raises Unprocessable or Unavailable."""
        sandbox = self._idle.get()
        try:
            result = sandbox.decode(upload)
        finally:
            self._idle.put(sandbox)
        if result is None:
            raise Unprocessable("unreachable", "It takes too long to get or to decode.")
        picture = result.decoding.result()
        aspect = picture.thumbnail.aspect
        size = round(SIDE_PX * min(1.0, aspect)), round(SIDE_PX * min(1.0, 1 / aspect))
        image = Image.fromarray(np.asarray(picture.pixels)).resize((max(1, size[0]), max(1, size[1])))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY)
        return out.getvalue()

    def close(self) -> None:
        """End the children; a busy one ends with this process."""
        while not self._idle.empty():
            self._idle.get().close()
