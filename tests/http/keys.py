"""Lines of a file of keys."""

import json

from consumer.http.keys import hash_key


def entry(name: str, key: str, scopes: list[str], tenants: list[str], more: str = "") -> str:
    """Write the entry of a key."""
    lines = (f"[keys.{name}]", f'sha256 = "{hash_key(key)}"', f"scopes = {json.dumps(scopes)}")
    return "\n".join((*lines, f"tenants = {json.dumps(tenants)}", more, ""))
