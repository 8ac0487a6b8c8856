"""Addresses that no upload may have fetched."""

PRIVATE_HOSTS = (
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "0", "[::1]", "[::]"),
    *("169.254.169.254", "10.0.0.1", "192.168.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[fe80::1]"),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "user:secret@127.0.0.1", "127.0.0.1:80", "①②⑦.0.0.1"),
)
REFUSED_URLS = (
    *("http://example.org/a.jpg", "ftp://example.org/a.jpg", "gopher://x", "javascript:alert(1)", "//example.org/a"),
    *("s3://bucket/key", "gs://bucket/key", "az://container/key", "data:image/png;base64,AAAA", "", "a.jpg", ":"),
    *("https://", "https:///a.jpg", "https://[::1/", "https://\x00/"),
)
