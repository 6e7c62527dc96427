"""The pipeline on a laptop: an embedded AWS, the state machine of ``asl/``, and real workers.

Nothing here is deployed or imported by the product. `emulator` starts ministack in its own process,
`server` is that process, `stack` deploys to it, `demo` shows all of it with a shop database.
"""
