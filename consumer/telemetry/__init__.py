"""What operators see of a service: metrics, traces, log lines, and the answers to probes.

The wings report what happens; Prometheus, an OTLP receiver, standard error and probes get it.
It knows no wing: it may ask the errors, the settings, the events and the decision alone.
"""
