"""Symbolic links in packages and checkers: followed inside, refused by name where they lead out."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.importing import Imported, Refused, read_source, write_problem
from hydragen_tree.problem.reading import load_problem

FILES = {
    "problem.yaml": "name: A\nvalidation: custom\n",
    "problem_statement/problem.en.tex": "Print the number.\n",
    "data/sample/1.in": "1\n",
    "data/sample/1.ans": "1\n",
    "data/secret/a/2.in": "2\n",
    "data/secret/a/2.ans": "2\n",
    "submissions/accepted/a.py": "print(input())\n",
    "output_validators/check/check.py": "import lib.rule\nlib.rule.end()\n",
    "more/rule.py": "def end():\n    import sys\n    sys.exit(42)\n",
}
LINKS = {
    "data/secret/b": "a",
    "data/secret/3.in": "../sample/1.in",
    "data/secret/3.ans": "../sample/1.ans",
    "submissions/wrong_answer": "accepted",
    "output_validators/check/lib": "../../more",
}


def package(home: Path, **links: str) -> Path:
    for name, text in FILES.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in {**LINKS, **links}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(target)
    return home


def zipped(home: Path, path: Path) -> Path:
    """The package as `zip -y` packs it, with its links as links."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in FILES:
            archive.write(home / name, name)
        for place in sorted(home.rglob("*")):
            if place.is_symlink():
                entry = zipfile.ZipInfo(str(place.relative_to(home)))
                entry.create_system = 3
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, os.readlink(place))  # noqa: PTH115 (as it is written)
    return path


def test_links_inside_a_package_are_followed(tmp_path: Path) -> None:
    home = package(tmp_path / "p")
    problem = load_problem(home)
    assert [test.input for test in problem.tests] == ["1\n", "1\n", "2\n", "2\n"]
    assert [one.name for one in problem.submissions] == [
        "submissions/accepted/a.py",
        "submissions/wrong_answer/a.py",
    ]
    with Judge(workers=1, cache=False) as judge:
        verdict = judge.judge(problem, "print(input())")
        assert verdict.status == "AC", verdict
        [imported] = read_source(home)
        assert isinstance(imported, Imported), imported
        written = load_problem(write_problem(imported, tmp_path / "out"))
        assert judge.judge(written, "print(input())").status == "AC"
    before = problem.content_hash
    (home / "more/rule.py").write_text("def end():\n    raise SystemExit(43)\n")
    assert load_problem(home).content_hash != before


def test_links_in_an_archive_are_links(tmp_path: Path) -> None:
    """Python's `zipfile` makes files of them, that hold a path instead of a test."""
    archive = zipped(package(tmp_path / "p"), tmp_path / "p.zip")
    [imported] = read_source(archive)
    assert isinstance(imported, Imported), imported
    inputs = [test["input"] for test in imported.document["tests"]]
    assert inputs == ["1\n", "1\n", "2\n", "2\n"]


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("data/secret/4.in", "../../../secret", "is outside of the package"),
        ("data/secret/4.in", "/etc/hostname", "is outside of the package"),
        ("data/secret/4.in", "../../../gone", "is not there"),
        ("data/secret/4.in", "4.in", "is not there"),
        ("data/secret/c", "../secret", "it lies in"),
        ("data/secret/c", "..", "it lies in"),
        ("data/secret/a/c", "../../../../folder", "is outside of the package"),
        ("statement", "../folder", "is outside of the package"),
        ("output_validators/check/x.py", "../../../secret", "is outside of the package"),
        ("output_validators/check/x.py", "../../../gone/x.h", "is not there"),
        ("more/x.py", "../../secret", "is outside of the package"),  # through another link
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_links_that_lead_out_are_refused(
    tmp_path: Path, link: str, target: str, reason: str, packed: bool
) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "folder").mkdir()
    home = package(tmp_path / "p", **{link: target})
    source = zipped(home, tmp_path / "p.zip") if packed else home
    [found] = read_source(source)
    assert isinstance(found, Refused), found
    place, _, said = str(found).partition(":")
    assert place.startswith(f"{source}/")
    assert place.endswith(Path(link).name)
    if packed and "outside" in reason:  # an archive is unpacked to where nothing is beside it
        reason = ""
    assert f"a link to {target}, which {reason}" in said
    if not packed:
        with pytest.raises(InputError, match=reason):
            load_problem(home)


def test_a_submission_that_leads_out_is_left_out_alone(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("print(1)\n")
    home = package(
        tmp_path / "p",
        **{
            "submissions/accepted/b.py": "../../../b.py",
            "submissions/accepted/c.py": "gone.py",
            "submissions/run_time_error": "../..",
        },
    )
    found, skipped = read_submissions(home, {})
    assert {one["name"] for one in found} >= {"submissions/accepted/a.py"}
    assert all("b.py" not in one["name"] for one in found)
    text = "\n".join(skipped)
    assert "submissions/accepted/b.py: a link to ../../../b.py, which is outside" in text
    assert "submissions/accepted/c.py: a link to gone.py, which is not there" in text
    assert "submissions/run_time_error: a link to ../.., which is outside" in text
    load_problem(home)


def test_what_is_not_read_may_lead_anywhere(tmp_path: Path) -> None:
    """Generators and input validators are none of our business, nor are dot files."""
    links = {"generators/x.h": "../../x.h", "data/secret/.DS_Store": "/gone"}
    home = package(tmp_path / "p", **links)
    (tmp_path / "link").symlink_to("p")
    assert load_problem(home).tests == load_problem(tmp_path / "link").tests


def test_the_checker_of_a_problem_file_may_lead_out_but_not_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/check").mkdir()
    (tmp_path / "a/check/main.py").symlink_to("../../rule.py")
    (tmp_path / "rule.py").write_text("raise SystemExit(42)")
    (tmp_path / "a/p.yaml").write_text(
        "title: A\nstatement: S\ntests: [{input: '', output: ''}]\n"
        "checker: {type: program, source: check, protocol: kattis}\n"
    )
    with Judge(workers=1, cache=False) as judge:
        assert judge.judge(load_problem(tmp_path / "a/p.yaml"), "").status == "AC"
        (tmp_path / "a/check/rule.h").symlink_to("../../gone.h")
        with pytest.raises(InputError, match=r"rule\.h: a link to ../../gone\.h, which is not th"):
            judge.judge(load_problem(tmp_path / "a/p.yaml"), "")


def test_an_archive_writes_through_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    entry = zipfile.ZipInfo("p/data")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, str(outside))
        archive.writestr("p/data/secret/1.in", "1\n")
    (tmp_path / "p.zip").write_bytes(packed.getvalue())
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(read_source(tmp_path / "p.zip"))
    assert not list(outside.iterdir())
