"""Commands of LaTeX that statements use: macros, conditions, files, lists, layout, symbols."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex import latex_to_text
from hydragen_tree.problem.formats.latex_math import math_to_text
from hydragen_tree.problem.formats.statement import markdown_to_text, read_statement


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # macros
        (r"\newcommand{\f}[2][d]{#1-#2}\f{x} and \f[y]{z}", "d-x and y-z"),
        (r"\let\eps=\varepsilon\let\smaller\le $\eps \smaller 1$", "epsilon <= 1"),
        (r"\let\old\textbf\renewcommand{\textbf}[1]{\old{#1}!} \textbf{a}", "**a**!"),
        (r"\newcommand{\ann}{Ann\xspace} \ann is \ann, \ann{} (\ann)", "Ann is Ann, Ann (Ann)"),
        (r"\newcommand\n{7}\begin{document}Up to $\n$.\end{document}", "Up to 7."),
        (r"\newcommand{\N}{\ensuremath{\mathbb{N}}} \N{} or $\N$", "N or N"),
        # conditions
        (r"a \iffalse hidden \else shown \fi b", "a shown b"),
        (r"a \iftrue \ifx\x\undefined deep \fi \else no \fi b", "a deep b"),
        (r"\newif\ifbig \ifbig a\else b\fi \bigtrue \ifbig c\else d\fi", "bc"),
        (r"\def\x{1}\ifdefined\x yes\fi\ifx\x\undefined no\fi{} $a \iff b$", "yes a <=> b"),
        (r"\if@internal a\else b\fi c", "bc"),
        # files that are not there
        (r"See \input{rules.tex} now", "See\n\n[Not found: rules.tex]\n\nnow"),
        (r"\lstinputlisting[language=C]{a.c}", "[Listing: a.c]"),
        # layout
        (r"end.\looseness-1", "end."),
        (r"a \hskip 1cm plus 2pt b \vspace{1em} c\kern-1pt d", "a b c d"),
        (r"\minipage{0.2\textwidth}a\endminipage\hfill\minipage{2cm}b\endminipage", "a b"),
        (r"\lstdefinestyle{s}{tabsize=4, basicstyle=\ttfamily}\definecolor{c}{rgb}{1,0,0}a", "a"),
        (r"\newsavebox\b\sbox\b{hidden}a\linespread{1.5}\fontsize{9}{10} b", "a b"),
        (r"\begin{tabular}{cc}\shortstack[l]{a \\ b} & \makecell{c\\d} \\ 1 & 2\end{tabular}",
         "a b | c d\n1 | 2"),
        (r"\section[short]{Long title} text", "## Long title\n\ntext"),
        (r"\section*{\outputsection}text in \timelimit{} s",
         "## outputsection\n\ntext in [the time limit] s"),
        (r"\epigraph{To be}{W. S.} text", "To be - W. S.\n\ntext"),
        (r"\begin{tcolorbox}[colback=red, title={Mind this}]text\end{tcolorbox}",
         "Mind this\n\ntext"),
        (r"Words. \InputFile One line. \OutputFile Another.",
         "Words.\n\n## Input\n\nOne line.\n\n## Output\n\nAnother."),
        # characters
        (r"Foo\texttrademark{} \textcopyright{} x\textsuperscript{2} H\textsubscript{2}O",
         "Foo™ © x^2 H_2O"),
        (r"\th\dj\DH{} \texttt{\^{} \~{} \_}", "þđÐ `^ ~ _`"),
        (r"\url{http://a.b/c%20d} and \url{http://a.b/c\%20d} on % gone",
         "http://a.b/c%20d and http://a.b/c%20d on"),
        (r"\lstinline{f(x)} \lstinline|a%b| \mintinline{c}{int x}", "`f(x)` `a%b` `int x`"),
        # lists
        (r"\begin{enumerate}[label=(\alph*)]\item a \item b\end{enumerate}", "(a) a\n(b) b"),
        (r"\begin{enumerate}[label=\textbf{Step \Roman*:}, start=4]\item a\end{enumerate}",
         "Step IV: a"),
        (r"\begin{enumerate}[i)]\item a \item b\end{enumerate}", "i) a\nii) b"),
        (r"\begin{enumerate}[start=0]\item a \item b\end{enumerate}", "0. a\n1. b"),
        (r"\begin{enumerate}\setcounter{enumi}{4}\item a \item[x] b \item c\end{enumerate}",
         "5. a\n- x b\n6. c"),
        (r"\begin{enumerate}[noitemsep]\item a\end{enumerate}", "1. a"),
    ],
)  # fmt: skip
def test_commands_of_text(source: str, expected: str) -> None:
    assert latex_to_text(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"A \subsetneq B \supseteq C", "A proper subset of B superset of C"),
        (r"\bigcup_{i} S_i \cong T", "union_i S_i ≅ T"),
        (r"n \choose k", "C(n, k)"),
        (r"{a+b \over 2} + \overline{cd}", "(a+b)/2 + overline(cd)"),
        (r"\sum_{\substack{i<j\\j<k}} a", "sum_{i<j; j<k} a"),
        (r"\underset{x}{\max} f \overset{?}{=} y", "max_x f =^(?) y"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "(1 2; 3 4)"),
        (r"\begin{bmatrix}1\\2\end{bmatrix}", "[1; 2]"),
        (r"\begin{cases} 1, & \text{if } x>0,\\ 0 & \text{else.}\end{cases}",
         "{ 1, if x>0; 0, else. }"),
        (r"\|x\| + a\hspace{1em}b\mkern5mu c", "||x|| + a b c"),
        (r"x \xrightarrow{f} y \Longrightarrow \heartsuit", "x -f-> y => ♥"),
        (r"\textcolor{red}{x} \coloneqq \overrightarrow{AB}", "x := AB"),
    ],
)  # fmt: skip
def test_commands_of_formulas(source: str, expected: str) -> None:
    assert math_to_text(source) == expected


def test_files_that_a_statement_includes(tmp_path: Path) -> None:
    folder = tmp_path / "package" / "problem_statement"
    folder.mkdir(parents=True)
    (tmp_path / "outside.tex").write_text("secret")
    (folder / "words.tex").write_text("\\newcommand{\\limit}{42}% a comment\n")
    (folder / "code.py").write_text("for i in x:\n    print(i)  # \\limit\n")
    (folder / "problem.en.tex").write_text(
        "\\input{words}\\input words.tex\nUp to \\limit.\n\\lstinputlisting{code.py}\n"
        "\\input{../../outside.tex}\n"
    )
    text, _ = read_statement(tmp_path / "package", {})
    code = "    for i in x:\n        print(i)  # \\limit"
    assert text == f"Up to 42.\n\n{code}\n\n[Not found: ../../outside.tex]"
    (folder / "words.tex").write_text("\\input{words}")
    with pytest.raises(InputError, match="the files never end"):
        read_statement(tmp_path / "package", {})


def test_pictures_in_html() -> None:
    source = 'a <img src="a.png" alt="A map"/> b <IMG width=3 src=b.svg> c <img> d'
    expected = "a [Figure: A map] b [Figure: b.svg] c [Figure: a picture] d"
    assert markdown_to_text(source) == expected
