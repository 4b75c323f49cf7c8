"""Safe reading and writing of files: regular files only, written beside and renamed, one writer at a time."""
