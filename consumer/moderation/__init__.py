"""What a moderation team knows beside earlier uploads: banks of pictures to block, to review or to allow.

In: the topic `image-banks`; uploads that were encoded. Out: the entries that each upload shows, and earlier uploads
that a new entry shows. May ask: verification, window, encoder, kafka, images, and what stands below.
"""
