"""Error of pictures, cost of files, and the codecs that one would use instead."""
