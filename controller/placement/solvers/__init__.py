"""The problems of placement on arrays: merge tree, p-median, integer programs. Nothing here knows a topology."""
