"""What text cannot show leaves its place in a statement; references and quantities are words."""

import pytest

from hydragen_tree.problem.formats.latex import latex_to_text
from hydragen_tree.problem.formats.statement import markdown_to_text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"See \includegraphics[width=\textwidth]{img/a.png}.", "See [Figure: img/a.png]."),
        (r"\begin{figure}\includegraphics{a}\end{figure}", "[Figure: a]"),
        (r"\begin{figure}\includegraphics{a}\caption{The map}\end{figure}", "[Figure: The map]"),
        (r"\illustration{.4}{sheep.jpg}{}Text", "[Figure: sheep.jpg]\n\nText"),
        ("Look:\n\\begin{center}\\begin{tikzpicture}[scale=2]\n\\draw (0,0) -- (1,1);\n"
         "\\node at (0,0) {$x$};\n\\end{tikzpicture}\\end{center}\nthere.",
         "Look:\n\n[Figure: a drawing]\n\nthere."),
        (r"A \tikz[baseline]{\draw (0,0) circle (1);} and \tikz \draw (0,0); b",
         "A [Figure: a drawing] and [Figure: a drawing] b"),
        ("a\n\\begin{tabbing}x \\= y \\\\ \\> z\\end{tabbing}\nb", "a\n\n[Table: not shown]\n\nb"),
        (r"\begin{tabular}{cc}\includegraphics{a} & 1 \\ x & 2\end{tabular}",
         "[Figure: a] | 1\nx | 2"),
        (r"\begin{tabular}{cc}\begin{tabular}{@{}c@{}}one\\two\end{tabular} & 1 \\ x & 2"
         r"\end{tabular}", "one; two | 1\nx | 2"),
        (r"\begin{tabular}{ll}\toprule a & b \\ \cmidrule(lr){1-2} \rowcolor{red} c & d \\"
         r"\bottomrule\end{tabular}", "a | b\nc | d"),
        (r"\begin{tabulary}{5cm}{LL}a & b \\ c & d\end{tabulary}", "a | b\nc | d"),
        ("\\newcolumntype{C}[1]{>{\\centering\\arraybackslash}p{#1}}\n"
         "\\begin{tabular}{C{2cm}|C{1cm}}a & b\\end{tabular}", "a | b"),
        (r"\newenvironment{note}[1][x]{\begin{center}#1}{\end{center}}Text", "Text"),
        (r"$x_i = 1 \text{ if $i$ is odd, and } 0 \text{ otherwise}$ so",
         "x_i = 1 if i is odd, and 0 otherwise so"),
        (r"$$f = \mbox{the $n$ of $m$} + 1$$", "f = the n of m + 1"),
        ("$a { b$ and $c$\n\nnext $d$", "a b and c\n\nnext d"),
        (r"\SI{5}{\meter\per\second\squared}, \SI{20}{\percent}, \si{\kilogram}, \num{2.5e-3}",
         "5 m/s^2, 20%, kg, 2.5 x 10^-3"),
        (r"\qty{3}{\micro\second}, \SIrange{1}{5}{\kilo\gram}, \ang{30}, \SI{1e6}{km}",
         "3 µs, 1 to 5 kg, 30 degrees, 10^6 km"),
        (r"\num{100000} and \numrange{1}{9} and \SI{7}{m/s}", "100000 and 1 to 9 and 7 m/s"),
    ],
)  # fmt: skip
def test_places_and_quantities(source: str, expected: str) -> None:
    assert latex_to_text(source) == expected


def test_references_are_numbers_that_captions_bear() -> None:
    source = r"""
\section{One}\label{sec:one}
Figure~\ref{fig:b} and \autoref{tab:a}, after Figure~\ref{fig:a}; by \eqref{eq}; in \ref{none}.
\begin{figure}\includegraphics{a}\caption{First}\label{fig:a}\end{figure}
\begin{figure}\includegraphics{b}\caption[short]{Second}\label{fig:b}\end{figure}
\begin{table}\caption{Costs}\label{tab:a}\begin{tabular}{c}1\end{tabular}\end{table}
\begin{equation}\label{eq} a = b \end{equation}
"""
    text = latex_to_text(source)
    assert "Figure 2 and Table 1, after Figure 1; by (1); in ?." in text
    assert "[Figure 1: First]\n\n[Figure 2: Second]\n\n[Table 1: Costs]\n\n1\n\na = b (1)" in text


def test_markdown_pictures_and_text_in_formulas() -> None:
    source = '![](a.png) and ![A map](b.png "title"){width=3}\n\n$x \\text{ if $i$ is odd}$ end'
    assert markdown_to_text(source) == ("[Figure: a.png] and [Figure: A map]\n\nx if i is odd end")
