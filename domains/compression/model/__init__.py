"""Models of pictures, their exact-integer form, and the files that they write."""
