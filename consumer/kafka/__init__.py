"""Comes in: Kafka messages and settings. Goes out: records under a lease, published messages, committed offsets.

May ask: the base only (errors, settings, events), and Kafka itself.
"""
