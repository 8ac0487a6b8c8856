"""Pictures from folders of this machine: file. In `file://` URLs the path is percent-decoded, as URLs are."""

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from consumer.errors import Unprocessable
from consumer.images.fetch_rules import check_length, redacted
from consumer.settings import FetchSettings


class FileFetcher:
    """Reads pictures below the folders that the settings allow. Thread-safe."""

    def __init__(self, settings: FetchSettings) -> None:
        self._folders = tuple(folder.resolve() for folder in settings.folders)
        self._max_bytes = settings.max_bytes

    def fetch(self, url: str) -> bytes:
        """Return the file at `url`. Raises Unprocessable."""
        host, _, path = url.partition(":")[2].removeprefix("//").partition("/")
        named = Path("/" + unquote(path, errors="surrogateescape"))
        if host not in ("", "localhost") or "\0" in str(named):
            raise Unprocessable("forbidden-address", f"{redacted(url)} is no address of a file here.")
        try:
            resolved = named.resolve(strict=False)
        except (OSError, RuntimeError):  # a loop of symbolic links
            raise Unprocessable("not-found", f"There is no {redacted(url)}.") from None
        for folder in self._folders:
            if resolved.is_relative_to(folder):
                return self._read(url, folder, resolved.relative_to(folder).parts)
        raise Unprocessable(
            "forbidden-address",
            f"{redacted(url)} lies in no folder that may be read; send the picture itself, or have the operator add "
            "its folder to SEENIT_FETCH_FOLDERS.",
        )

    def _read(self, url: str, folder: Path, parts: tuple[str, ...]) -> bytes:
        """Open folder by folder without following links, so that a link put there after the check leads nowhere."""
        fd = -1
        try:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for position, part in enumerate(parts, start=1):
                # O_NONBLOCK, since opening a pipe would wait for its writer.
                flags = os.O_RDONLY | os.O_NONBLOCK if position == len(parts) else os.O_PATH | os.O_DIRECTORY
                outer, fd = fd, os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(outer)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unprocessable("not-found", f"{redacted(url)} is no regular file.")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise Unprocessable(
                "not-found", f"{redacted(url)} cannot be read: {os.strerror(error.errno or 0)}."
            ) from None
        finally:
            if fd >= 0:
                os.close(fd)
        check_length(url, len(data), self._max_bytes)
        return data
