"""Gives up the rights that a process which only fetches and decodes does not need, as far as the kernel lets it.

Landlock (Linux 5.13) needs no root: nothing may be written, created, deleted or run any more, and from Linux 6.12 on no
process outside be signalled. Threads and children begun later inherit that, and nothing gives it back. Threads begun
before keep all rights: there should be none.
"""

import logging
import resource
from pathlib import Path

from landlockpy import AccessFS, AccessNet, LandlockError, Ruleset, Scope

log = logging.getLogger(__name__)

# Where there is no Landlock, no disk is filled at least. With it no limit is needed, and a log may be a large file.
MAX_FILE_BYTES = 4096
_READ = AccessFS.READ_FILE | AccessFS.READ_DIR


def give_up() -> None:
    """Restrict this thread, and those that it begins from now on; warn of what is not restricted."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if earlier := len(list(Path("/proc/self/task").iterdir())) - 1:
        log.warning("pictures are tried out beside %d threads with all rights of the service, begun too early", earlier)
    try:
        with Ruleset(handled_net=AccessNet.BIND_TCP, scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
            rules.allow_path("/", _READ)
            rules.restrict()
    except LandlockError as error:
        log.warning("pictures are tried out with all rights of the service: the kernel has no Landlock: %s", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
