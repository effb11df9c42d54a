"""Accept any directions of the streets that keep every crossing in balance."""


def check(input: str, answer: str, output: str) -> tuple[bool, str]:
    """Judge the directions of all streets; the jury's answer is only one of many."""
    crossings, streets, *ends = map(int, input.split())
    lines = [line.split() for line in output.splitlines() if line.strip()]
    if len(lines) != streets:
        return False, f"expected {streets} lines, found {len(lines)}"
    balance = [0] * (crossings + 1)
    for street, words in enumerate(lines):
        u, v = ends[2 * street], ends[2 * street + 1]
        if words not in ([str(u), str(v)], [str(v), str(u)]):
            return False, f"street {street + 1} joins {u} and {v}, not {' '.join(words)[:40]}"
        balance[int(words[0])] += 1
        balance[int(words[1])] -= 1
    for crossing, difference in enumerate(balance):
        if abs(difference) > 1:
            return False, f"crossing {crossing}: in and out differ by {abs(difference)}"
    return True, f"{streets} streets in balance"
