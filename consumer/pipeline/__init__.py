"""The pipeline. In: records of the input topic, on leases. Out: verdicts, dead letters and committed offsets.

Each batch goes through four stages: `ingest`, `encode`, `match`, `publish`; `runner` gives each a thread.
It may ask every wing but the command line.
"""
