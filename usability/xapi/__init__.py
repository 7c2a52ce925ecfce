"""The learning record store at /xapi/: xAPI 1.0.3 and 2.0 (IEEE 9274.1.1), and its way into detection.

One module a noun: `values` (atoms), `actors`, `activities`, `statement` (the data rules), `references` (what a
statement can be found by), `sameness` (when two are the same), `shapes` (the formats of an answer), `multipart`
and `signatures` (attachments), `store`, `query`, `documents` (the database), `web` and `resources` (HTTP).
"""
