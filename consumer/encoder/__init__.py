"""The encoder. In: pixels, uint8 [N, S, S, 3].
Out: unit vectors, float32 [N, D], local features, int8 [N, P, C], and the served model's contract.
May ask: images, base (errors, settings), and Triton over gRPC.
"""
