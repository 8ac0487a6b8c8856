"""In: uploads (digest, vector, patches) and deletions, by the Protocol `contract.Window`; in a recovery, the changelog.
Out: what stands before each upload, exact and near; the patches of earlier pictures; the changelog's messages.
May ask: encoder, kafka and the base.
"""
