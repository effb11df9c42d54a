"""Statements as text: LaTeX in the subset of the package format, Markdown, plain."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex import latex_to_text, problem_name
from hydragen_tree.problem.formats.latex_math import math_to_text
from hydragen_tree.problem.formats.statement import (
    markdown_to_text,
    read_statement,
    statement_languages,
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"1 \le n \leq 10^{5}", "1 <= n <= 10^5"),
        (r"-10^{9} \leq a_i \le 10^{9}", "-10^9 <= a_i <= 10^9"),
        (r"2 \leq n \leq 100\,000", "2 <= n <= 100000"),
        (r"a_1, a_2, \ldots, a_{n}", "a_1, a_2, ..., a_n"),
        (r"a_{i+1} \ne b_{i,j}", "a_{i+1} != b_{i,j}"),
        (r"2^{n-1} + 10^{-6}", "2^(n-1) + 10^-6"),
        (r"\frac{n(n+1)}{2}", "n(n+1)/2"),
        (r"\frac{a}{b+1}", "a/(b+1)"),
        (r"\left\lfloor \frac{x}{2} \right\rfloor", "floor(x/2)"),
        (r"\sqrt{x^2 + y^2}", "sqrt(x^2 + y^2)"),
        (r"\sqrt[3]{x}", "root(3, x)"),
        (r"\sum_{i=1}^{n} a_i \bmod (10^9+7)", "sum_{i=1}^n a_i mod (10^9+7)"),
        (r"O(n\log n)", "O(n log n)"),
        (r"\binom{n}{k} \equiv 1 \pmod{p}", "C(n, k) ≡ 1 (mod p)"),
        (r"x \in \{1, 2\}", "x in {1, 2}"),
        (r"n\times m", "n x m"),
        (r"\text{if } x \text{ is odd}", "if x is odd"),
        (r"90^\circ", "90 degrees"),
        (r"f(x)=\begin{cases} 1 & x>0 \\ 0 & \text{otherwise}\end{cases}",
         "f(x)={ 1, x>0; 0, otherwise }"),
        (r"\alpha\beta \max(a,b)", "alpha beta max(a,b)"),
        (r"|S| = \lvert T \rvert", "|S| = |T|"),
        (r"\mathit{wolf} \oplus \mathbb{Z}", "wolf xor Z"),
        (r"a \not\equiv b, a \not= b, a \not\in S", "a ≢ b, a != b, a not in S"),
        (r"\overline{ab} = 10a + b, \bar{x}, \overline x", "overline(ab) = 10a + b, x̄, x̄"),
        (r"\widehat{ABC}, \hat{p}, \tilde{n}", "hat(ABC), p̂, ñ"),
        (r"\SI{10}{\kilo\meter\per\hour}, \num{1e9}", "10 km/h, 10^9"),
        (r"x \text{ where $x_{i+1}$ is odd} + 1", "x where x_{i+1} is odd + 1"),
        (r"\strange{x}", r"\strange x"),
    ],
)  # fmt: skip
def test_formulas(source: str, expected: str) -> None:
    assert math_to_text(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("one\nline  of\ttext", "one line of text"),
        ("first\n\n\nsecond", "first\n\nsecond"),
        ("a % gone\nb", "a b"),
        ("50\\% sure", "50% sure"),
        ("a%\n  b", "ab"),
        ("``So---what?'' 5--6 `q'", "\"So - what?\" 5-6 'q'"),
        ('Erd\\H{o}s, na\\"ive, \\v{c}, \\aa ngstr\\"om, \\\'{e}', "Erdős, naïve, č, ångström, é"),
        ("\\textbf{bold} and \\emph{ soft} and \\texttt{a\\_b}", "**bold** and *soft* and `a_b`"),
        ("{\\em kept} \\textsc{Kept} \\unknown{kept} \\small kept", "kept Kept kept kept"),
        ("\\verb|x_y % z| and \\url{http://a.b/c_d}", "`x_y % z` and http://a.b/c_d"),
        ("see \\href{http://a}{the site}", "see the site"),
        ("$n$ is 1\\,000, $$x^2$$ and \\(y\\)", "n is 1000,\n\nx^2\n\nand y"),
        ("a~b\\\\c", "a b\nc"),
        ("price \\$5 \\& \\#1 \\{x\\}", "price $5 & #1 {x}"),
        ("\\section*{Input}\nOne line.", "## Input\n\nOne line."),
        ("\\begin{Output}\nOne line.\n\\end{Output}", "## Output\n\nOne line."),
        ("word\\footnote{note}.", "word (note)."),
        ("\\newcommand{\\maxn}{10^{5}}$n\\le\\maxn$", "n <= 10^5"),
        ("\\newcommand{\\pair}[2]{(#1, #2)}\\pair{a}{b}", "(a, b)"),
        ("\\newcommand{\\opt}[2][x]{#1#2}\\opt{y}", "xy"),
        ("\\def\\both#1#2{#2#1}\\both{a}{b}", "ba"),
        ("\\DeclareMathOperator{\\dist}{dist} $\\dist(a)$", "dist(a)"),
        ("\\constant{n} or \\constant{missing}", "42 or missing"),
        ("\\includegraphics[width=3cm]{a.png} text \\label{x}", "[Figure: a.png] text"),
        ("\\illustration{0.3}{a.png}{A sheep}Text", "[Figure: A sheep]\n\nText"),
        ("\\begin{figure}[h]\\centering\\caption{Map}\\end{figure}", "[Figure: Map]"),
        ("\\documentclass{x}\\begin{document}Body\\end{document}", "Body"),
        ("\\nextsample\nText\n\\remainingsamples", "Text"),
        ("lone backslash \\", "lone backslash"),
        ("{unclosed \\textbf{group", "unclosed **group**"),
        ("$unclosed", "unclosed"),
        ("", ""),
    ],
)
def test_latex(source: str, expected: str) -> None:
    assert latex_to_text(source, {"n": "42"}) == expected


def test_latex_lists_tables_and_verbatim() -> None:
    source = r"""
The input:
\begin{itemize}
  \item One line
        with $n$.

  \item Then:
    \begin{enumerate}
      \item $x$
      \item $y$
    \end{enumerate}
\end{itemize}
\begin{center}\begin{tabular}{|l|c|}\hline
Name & Value \\ \hline
a\&b & $1$ \\
\multicolumn{2}{c}{both} \\
\end{tabular}\end{center}
\begin{verbatim}
a  b % kept
  $x$ \item
\end{verbatim}
\begin{lstlisting}[language=Python]
print(1)
\end{lstlisting}
"""
    assert latex_to_text(source) == (
        "The input:\n\n"
        "- One line with n.\n- Then:\n  1. x\n  2. y\n\n"
        "Name | Value\na&b | 1\nboth\n\n"
        "    a  b % kept\n      $x$ \\item\n\n"
        "    print(1)"
    )


def test_a_macro_that_never_ends_is_refused() -> None:
    with pytest.raises(InputError, match="never ends"):
        latex_to_text(r"\def\a{\a\a}\a")


def test_groups_nested_too_deeply_are_refused() -> None:
    with pytest.raises(InputError, match="too deeply"):
        latex_to_text("{" * 2_000 + "}" * 2_000)


def test_the_title_may_stand_in_the_statement() -> None:
    assert problem_name(r"\problemname{A \& {B}}") == "A & {B}".replace("{B}", "B")
    assert problem_name("no title") is None


def test_markdown() -> None:
    source = (
        "Given $n$ ($1 \\le n \\le {{max}}$), costs \\$5 or $5.\n\n"
        "![A map](map.png)\n<!-- hidden -->\n"
        "## Input\n\n- `$x$` stays\n- $$\\frac{a}{b}$$\n\n"
        "```\n$code$ {{max}}\n```\n\n{{nextsample}}\n{{ remainingsamples }}\n{{unknown}}\n"
    )
    assert markdown_to_text(source, {"max": "100"}) == (
        "Given n (1 <= n <= 100), costs $5 or $5.\n\n"
        "[Figure: A map]\n\n"
        "## Input\n\n- `$x$` stays\n- \n\na/b\n\n"
        "```\n$code$ 100\n```\n\n{{unknown}}"
    )


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", "-").replace("_", ".")).write_text(text, encoding="utf-8")


def test_english_is_read_first_and_markdown_before_latex(tmp_path: Path) -> None:
    write(
        tmp_path / "statement",
        problem_sv_md="Hej",
        problem_en_tex="LaTeX",
        problem_en_md="Hello",
        problem_pt__BR_md="Oi",
    )
    assert read_statement(tmp_path, {}) == ("Hello", None)
    assert statement_languages(tmp_path) == ["en", "en", "pt-BR", "sv"]


def test_legacy_folder_and_a_name_without_language(tmp_path: Path) -> None:
    write(tmp_path / "problem_statement", problem_tex="\\problemname{Sum}\nAdd.")
    assert read_statement(tmp_path, {}) == ("Add.", "Sum")


def test_plain_text_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "statement", problem_en_txt="a  $b$\n")
    assert read_statement(tmp_path, {}) == ("a  $b$", None)


def test_statements_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no statement"):
        read_statement(tmp_path, {})
    write(tmp_path / "statement", problem_en_pdf="%PDF")
    with pytest.raises(InputError, match="only statement is a PDF"):
        read_statement(tmp_path, {})
    write(tmp_path / "statement", problem_en_md=" \n")
    with pytest.raises(InputError, match="is empty"):
        read_statement(tmp_path, {})
    (tmp_path / "statement" / "problem.en.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_statement(tmp_path, {})
