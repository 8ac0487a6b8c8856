"""Moderation. In: the topics `image-banks` and `image-feedback`; uploads that were decided on.

Out: the entries of banks that each upload shows, and earlier uploads that a new entry shows; campaigns and floods;
pairs that people rejected. It may ask verification, window, encoder, kafka and images.
"""
