"""Moderation. In: decided uploads, and what people decided about matches. Out: campaigns, floods, rejected pairs.

It may ask verification, window, encoder and kafka.
"""
