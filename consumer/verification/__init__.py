"""Takes uploads with the near matches that the window found, and the local features stored of both.
Gives evidence: which matches the second look, at features and thumbnails, verifies, and the edit that leads from each.
May ask window, encoder, images and the base; never pipeline, service or cli.
"""
