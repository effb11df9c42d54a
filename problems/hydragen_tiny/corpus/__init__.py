"""Problems and programs, composed from small declarative parts.

A task says how the input is read, which steps change what was read, what is computed and how the
answer is printed. Each part carries three things that know nothing of each other: phrases for the
statement, lines of Python for the program, and a function (`spec`) that says what is right.

    parts.py      the types: Source, Step, Family, Finish
    sources.py    how lists of integers are read; shapes.py, shape_data.py: everything else
    *_steps.py    what may happen to it before the question: items, lists, text, tables
    families/     what is asked
    finishes.py   how the answer is printed
    tasks.py      draws a composition and its tests; knows what is held out
    phrasing.py   task -> statement; scenes.py: what it tells of; formal.py: inputs with bounds
    styles.py     task -> program
    documents.py  tasks -> few-shot documents
"""
