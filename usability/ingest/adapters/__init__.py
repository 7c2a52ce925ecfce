"""From other vocabularies to metrics: what a statement or an event means for detection, or why it means nothing.

Pure translations. They copy ids, numbers, yes and no, and no text that somebody typed: an id that does not fit the
alphabet of ids is replaced by a digest of itself.
"""
