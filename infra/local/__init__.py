"""The pipeline on a laptop: an embedded AWS, the state machine of ``asl/``, and real workers.

Nothing here is deployed or imported by the product. `emulator` starts ministack in a process of its
own, `server` is that process, `stack` deploys to it, `demo` shows all of it on a shop database.
"""
