"""The tree about itself: sizes of files and functions, and the picture of its packages."""
