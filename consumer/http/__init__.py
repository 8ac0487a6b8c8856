"""Look-ups over HTTP, and the page.

In comes a request, out goes an answer in JSON or HTML; nothing of a picture that is looked up is stored. It may ask
verification, window, encoder, images, kafka and telemetry, and stands beside the pipeline.
"""
