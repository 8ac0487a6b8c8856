"""An embedded stack on one machine: broker, Redis-compatible server, Triton and consumers.

Pinned binaries come in, running servers and their addresses go out; the demonstration runs on them.
It may ask the topics' clients, the drawing of verifications and the settings; only the command line asks it.
"""
