"""Other people's problems as documents: what a problem file of ours would say.

    kattis.py       Kattis/ICPC problem packages, legacy and 2025-09
    statement.py    their statements as text for a prompt; latex.py does LaTeX
    datasets.py     HumanEval, MBPP, evalplus, APPS, CodeContests, LiveCodeBench

Nothing here runs code from a data set, and nothing is ever unpickled.
"""
