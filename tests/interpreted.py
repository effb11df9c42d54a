"""Triton's interpreter, without a part of its work that it repeats for each call of a function.

It puts its own functions into Triton's language at each launch, and again wherever a kernel calls a
function, `tl.sum` included: about half of the time of kernels on small arrays. Here a process that
interprets does so once for each module of kernels, for good.
"""

import triton
from triton.runtime import interpreter


def patch_once() -> None:
    """Has the language changed once a module; to be called before the first launch."""
    if not hasattr(interpreter, "_LangPatchScope"):
        return  # another Triton, which does this in its own way
    patch, patched = interpreter._patch_lang, set[str]()

    def patch_unless_done(fn: triton.KernelInterface) -> interpreter._LangPatchScope:
        module = fn.__globals__["__name__"]
        if module not in patched:
            patched.add(module)
            patch(fn)
        return interpreter._LangPatchScope()  # with nothing to restore

    interpreter._patch_lang = patch_unless_done
