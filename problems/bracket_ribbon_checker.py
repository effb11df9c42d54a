"""Accept any shortest ribbon in order that holds the given signs in their order."""


def check(input: str, answer: str, output: str) -> tuple[bool, str]:
    """Judge a mended ribbon; the jury's answer only says how long a shortest one is."""
    ribbon, shortest, mended = input.strip(), answer.strip(), output.strip()
    if set(mended) - set("()[]"):
        return False, "there are other signs than ()[]"
    if not _in_order(mended):
        return False, "the ribbon is not in order"
    signs = iter(mended)
    if not all(sign in signs for sign in ribbon):
        return False, "old signs are gone or have changed places"
    if len(mended) > len(shortest):
        return False, f"{len(mended)} signs where {len(shortest)} are enough"
    return True, f"{len(mended) - len(ribbon)} new signs"


def _in_order(ribbon: str) -> bool:
    open_signs: list[str] = []
    for sign in ribbon:
        if sign in "([":
            open_signs.append(sign)
        elif not open_signs or open_signs.pop() + sign not in ("()", "[]"):
            return False
    return not open_signs
