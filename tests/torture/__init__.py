"""Test whether every upload gets exactly one verdict, whatever fails: `python -m tests.torture --help`.

workload ─> topics, object store ─> consumers ─> topics ─> checker
                          nemesis hurts all of these
"""
