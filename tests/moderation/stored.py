"""What Redis holds, to be searched for what must not be there."""

from redis import Redis


def stored_bytes(redis: Redis, pattern: str = "*") -> bytes:
    """All names and values of the keys of this pattern, each in quotation marks."""
    parts: list[bytes] = []
    for key in redis.keys(pattern):
        kind = redis.type(key)
        parts.append(key)
        if kind == b"hash":
            parts += [part for pair in redis.hgetall(key).items() for part in pair]
        elif kind == b"zset":
            parts += redis.zrange(key, 0, -1)
        elif kind == b"stream":
            parts += [part for _, fields in redis.xrange(key) for pair in fields.items() for part in pair]
        else:
            parts.append(redis.get(key) or b"")
    return b" ".join(b'"' + part + b'"' for part in parts)
