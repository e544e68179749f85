"""Generated from the protos by `make generate`; never edited by hand."""
