"""Connect to the Redis that the settings name, a single server or a cluster."""

from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from consumer.errors import Misconfigured, Unavailable
from consumer.settings import RedisSettings

AnyRedis = Redis | RedisCluster

# How a client says that a server cannot be asked. For a cluster that is away there is a word that is no RedisError.
REDIS_FAILURES = (RedisError, RedisClusterException, OSError)


def connect(settings: RedisSettings) -> AnyRedis:
    """A client of the configured Redis; of a cluster it is connected, else it connects with the first command.

    Raises Misconfigured, without a word of the address, which may hold a password; Unavailable where a cluster is away.
    """
    options = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        # Sockets that died unseen are found out before a command is sent on them.
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
