"""What the tests of the window ask for."""

from tests.window.servers import empty_redis, redis, server

__all__ = ["empty_redis", "redis", "server"]
