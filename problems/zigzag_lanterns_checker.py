"""Accept any order of the lanterns that goes up and down by turns."""


def check(input: str, answer: str, output: str) -> tuple[bool, str]:
    """Judge a row of lanterns; the jury's answer is only one of many."""
    heights = input.split()[1:]
    row = output.split()
    if len(row) != len(heights):
        return False, f"expected {len(heights)} heights, found {len(row)}"
    if sorted(row) != sorted(heights):
        return False, "the heights printed are not those given"
    tall = [int(height) for height in row]
    for i in range(1, len(tall) - 1):
        if (tall[i] > tall[i - 1]) != (tall[i] > tall[i + 1]):
            return False, f"lantern {i + 1} is taller than one neighbour and shorter than the other"
    return True, f"a zigzag of {len(row)} lanterns"
