"""The first look at somebody's data: what its files, columns and values seem to be."""
