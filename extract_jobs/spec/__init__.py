"""What one extract of one table needs: the spec, its parts, and the rules between them.

Promises that a spec which validates is complete and safe to run: combinations that would destroy or
duplicate data are rejected here, before anything is read. Imports only `extract_jobs.errors`, and
neither Spark nor AWS.
"""
