"""What the commands and environments of LaTeX's text are in plain text."""

# Marks inside the text while its white space is still LaTeX's. The source can hold none of them:
# `prepare` removes control characters.
BREAK, THIN = "\x01", "\x05"

MATHS = ("equation", "align", "gather", "displaymath", "math", "eqnarray", "multline", "alignat")
SECTIONS = {"section": "##", "subsection": "###", "subsubsection": "####", "paragraph": "####"}
HEADED = ("Input", "Output", "Interaction")  # environments of format 2025-09
FONTS = {"textbf": "**", "emph": "*", "textit": "*", "texttt": "`", "textsl": "*"}
ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328",
    "r": "\u030a", "d": "\u0323", "b": "\u0331",
}  # fmt: skip
SYMBOLS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł",
    "aa": "å", "AA": "Å", "i": "i", "j": "j", "S": "§", "P": "¶", "pounds": "£", "euro": "€",
    "copyright": "©", "LaTeX": "LaTeX", "TeX": "TeX", "ldots": "...", "dots": "...",
    "textellipsis": "...", "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^",
    "textless": "<", "textgreater": ">", "textbar": "|", "textunderscore": "_", "textendash": "-",
    "textemdash": " - ", "textquotesingle": "'", "textquotedbl": '"', "textdegree": "°",
    "textdollar": "$", "textasteriskcentered": "*", "textbullet": "*", "textbraceleft": "{",
    "textbraceright": "}", "guillemotleft": '"', "guillemotright": '"',
    "texttrademark": "™", "textregistered": "®", "textcopyright": "©", "dj": "đ", "DJ": "Đ",
    "dh": "ð", "DH": "Ð", "th": "þ", "TH": "Þ", "textmu": "µ", "texttimes": "x", "textpm": "±",
    "textquoteleft": "'", "textquoteright": "'", "textquotedblleft": '"', "textquotedblright": '"',
    "og": '"', "fg": '"', "textonehalf": "½", "textnumero": "№", "textordmasculine": "º",
    "slash": "/", "checkmark": "✓", "hfill": " ", "vfill": "\n\n", "smallskip": "\n\n",
    "medskip": "\n\n", "bigskip": "\n\n", "newpage": "\n\n", "clearpage": "\n\n",
    "quad": " ", "qquad": " ", "newline": BREAK, "linebreak": BREAK, "par": "\n\n", " ": " ",
    "\n": " ", ",": THIN, ";": " ", ":": " ", "!": "", "-": "", "/": "", "@": "",
}  # fmt: skip
DROPPED = {  # commands that show nothing, with the number of their arguments
    "label": 1, "pageref": 1, "vspace": 1, "vspace*": 1, "hspace": 1,
    "hspace*": 1, "setlength": 2, "addtolength": 2,
    "usepackage": 1, "pagestyle": 1, "thispagestyle": 1, "problemname": 1, "color": 1, "cline": 1,
    "graphicspath": 1, "index": 1, "hypersetup": 1, "lstset": 1, "cite": 1,
    "rule": 2, "captionsetup": 1, "selectlanguage": 1, "cellcolor": 1,
    "rowcolor": 1, "columncolor": 1, "arrayrulecolor": 1, "rowcolors": 3, "specialrule": 3,
    "tikzset": 1, "usetikzlibrary": 1, "pgfplotsset": 1, "pgfmathsetmacro": 2, "sisetup": 1,
    "minipage": 1, "linespread": 1, "fontsize": 2, "definecolor": 3, "colorlet": 2, "newlength": 1,
    "newcounter": 1, "stepcounter": 1, "addtocounter": 2, "refstepcounter": 1, "lstdefinestyle": 2,
    "lstdefinelanguage": 2, "tcbset": 1, "newsavebox": 1, "sbox": 2, "savebox": 2, "usebox": 1,
    "hyphenation": 1, "addcontentsline": 3, "phantom": 1, "hphantom": 1, "vphantom": 1,
    "documentclass": 1, "bibliographystyle": 1, "DeclareUnicodeCharacter": 2, "pdfinfo": 1,
    "DeclareTextSymbolDefault": 2, "PassOptionsToPackage": 2, "footnotemark": 0,
}  # fmt: skip
SECOND_IS_TEXT = (
    "href",
    "textcolor",
    "colorbox",
    "raisebox",
    "parbox",
    "scalebox",
    "resizebox",
    "rotatebox",
    "foreignlanguage",
)
ENVIRONMENT_ARGUMENTS = {
    "tabular": 1, "tabularx": 2, "tabular*": 2, "longtable": 1, "wrapfigure": 2, "minipage": 1,
    "multicols": 1, "subfigure": 1, "adjustbox": 1, "wraptable": 2, "array": 1, "tabulary": 2,
    "supertabular": 1, "tabu": 1, "NiceTabular": 1, "tblr": 1,
    "problem": 5,
}  # fmt: skip
TABLES = ("tabular", "tabularx", "tabular*", "longtable", "array", "tabulary", "supertabular",
           "tabu", "NiceTabular", "tblr")  # fmt: skip
# What text cannot show, and what stands for it.
DRAWINGS = ("tikzpicture", "tikzcd", "pspicture", "picture", "forest", "circuitikz", "pgfpicture",
             "asy", "chessboard")  # fmt: skip
NO_DRAWING, NO_TABLE = "[Figure: a drawing]", "[Table: not shown]"
# Commands before a length or a number, as TeX writes them: `\\hskip 1cm plus 2pt`, `\\looseness-1`.
LENGTHS = ("kern", "hskip", "vskip", "looseness", "penalty", "parskip", "parindent", "itemsep",
            "baselineskip", "tabcolsep", "topsep", "hangindent", "raggedbottom", "leftmargin",
            "tolerance", "emergencystretch", "hsize", "lineskip", "parsep", "partopsep",
            "arraystretch")  # fmt: skip
STACKS = ("shortstack", "makecell", "thead", "vtop", "vbox")  # lines within one cell
HEADINGS = {  # of Polygon's style
    "InputFile": "Input", "OutputFile": "Output", "Interaction": "Interaction", "Note": "Note",
    "Notes": "Notes", "Scoring": "Scoring", "Constraints": "Constraints",
}  # fmt: skip
