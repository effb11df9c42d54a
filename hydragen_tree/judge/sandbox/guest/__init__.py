"""The code that runs inside the sandbox. Standard library and relative imports only.

Nothing here may import from the rest of the project: inside the sandbox this folder is all there
is of it, and the interpreter may be another one than the judge's.
"""
