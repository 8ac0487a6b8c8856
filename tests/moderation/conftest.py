"""What the tests of moderation ask for: its copies in Redis stand beside the window."""

from tests.window.servers import empty_redis, redis, server

__all__ = ["empty_redis", "redis", "server"]
