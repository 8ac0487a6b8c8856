"""Kafka. In: messages of the input topic, as records under the lease of their partition; verdicts and dead letters.
Out: messages published and offsets committed, together; the topics' differences from what they should be, and the lag.
May ask: base (errors, settings, events); no other wing.
"""
