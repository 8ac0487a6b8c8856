"""What the tests of the window ask for."""

from tests.window.servers import backend, empty_redis, redis, server

__all__ = ["backend", "empty_redis", "redis", "server"]
