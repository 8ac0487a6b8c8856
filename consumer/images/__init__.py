"""Pictures. In: a picture's URL or its bytes.
Out: its pixels, uint8 [S, S, 3], those of pictures within it, or the reason why there are none.
May ask: base (errors, settings, events); no other wing.
"""
