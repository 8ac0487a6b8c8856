"""Connect to the Redis that the settings name, a single server or a cluster."""

from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from consumer.errors import Misconfigured, Unavailable
from consumer.settings import RedisSettings

AnyRedis = Redis | RedisCluster

# What a client raises when a server cannot be asked. RedisClusterException, for a cluster that is away, is no
# RedisError.
REDIS_FAILURES = (RedisError, RedisClusterException, OSError)


def connect(settings: RedisSettings) -> AnyRedis:
    """Open a client of the configured Redis. One of a cluster connects at once, another one with its first command.

    Raises Misconfigured for a malformed address, without naming it, since it may hold a password, and Unavailable when
    a cluster is away.
    """
    options = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        # A socket idle for longer is pinged first: no command is sent on one that has died meanwhile.
        "health_check_interval": 30,
        **({"ssl_ca_certs": settings.ssl_ca_file} if settings.ssl_ca_file else {}),
    }
    client = RedisCluster if settings.cluster else Redis
    try:
        return client.from_url(settings.url.get_secret_value(), **options)
    except RedisClusterException as error:
        raise Unavailable("redis", str(error)) from None
    except ValueError:
        raise Misconfigured(
            "SEENIT_REDIS_URL is no redis:// or rediss:// address; mind to percent-encode a password"
        ) from None
