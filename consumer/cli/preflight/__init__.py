"""What `seenit check` tries: the settings come in, a `Finding` for each thing tried goes out.

`check` tries everything, with a module each for `kafka`, `redis`, `triton` and `fetch`.
Each is tried the way the service will use it, and a finding says how to mend what fails.
"""
