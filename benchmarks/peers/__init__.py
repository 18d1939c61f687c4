"""Published pose models of others and posesdk's own behind one interface, for benchmarks of one beside the other.

The weights lie outside of the repository and are read from a folder that the caller names. What turns their outputs
into poses is written from the documentation and papers that each module names.
"""
