"""Reading inputs and writing outputs safely: regular files only, written beside and renamed, one writer at a time."""
