"""Which Dockerfiles reach a human, and which are sent back to the agent at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.documents.dockerfile import MAX_BYTES, DockerfileError, check


@pytest.mark.parametrize(
    "text",
    [
        'FROM debian:12\nRUN apt-get update \\\n  # why\n\n  && apt-get install -y git\nCMD ["sh"]\n',
        "# syntax=docker/dockerfile:1\n# escape=`\nARG BASE=debian\nFROM ${BASE}:12 AS build\nRUN a `\n  b\n",
        "FROM --platform=$BUILDPLATFORM a AS x\nFROM x AS y\nCOPY --from=x --chown=1:1 /a /b\n",
        "FROM a\nRUN <<EOF\nset -e\nNOT AN INSTRUCTION\nEOF\nUSER 1000\n",
        "FROM a\nCOPY <<'one' <<-two /dir/\nx\none\n\ty\n\ttwo\nWORKDIR /dir\n",
        'FROM a\nRUN echo "<<EOF" $((1<<2)) && cat <<< word\n',
        'FROM a\nENV A=1 B="two words"\nENV A 1\nLABEL x=y\n',
        "FROM a\nRUN [ -f /x ] && true\nHEALTHCHECK --interval=3s CMD true\nHEALTHCHECK NONE\n",
        "FROM a\nONBUILD RUN x\nEXPOSE 80 443/tcp 5000-5010/udp $PORT\nCMD\n",
        'from scratch\r\ncopy a /\r\nshell ["/bin/sh", "-c"]\r\n',
        "FROM registry.example:5000/team/image@sha256:0123\nRUN\techo tab\nRUN it's fine\n",
    ],
)
def test_what_a_builder_reads_is_accepted(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: there is no FROM"),
        ("ARG A\n", "there is no FROM"),
        ("\n# c\nRUN x\n", "line 3: RUN before the first FROM"),
        ("FROM\n", "line 1: FROM has too few arguments"),
        ("FROM a b\n", "FROM takes an image, or an image AS a name"),
        ("FROM a AS 1x\n", "is not a name for a stage"),
        ("FROM a;rm\n", "is not the name of an image"),
        ("FROM a AS x\nFROM b AS X\n", "line 2: stage 'X' a second time"),
        ("FROM a\nRUNN x\n", "line 2: 'RUNN' is not an instruction"),
        ("FROM a\nRUN x \\\n", "line 2: ends with \\ but nothing follows"),
        ("FROM a\nRUN <<EOF\nx\n", "line 2: the heredoc 'EOF' has no end"),
        ("FROM a\nCMD ['x']\n", "CMD starts like a JSON list but is not a valid one"),
        ("FROM a\nCMD [1]\n", "CMD starts like a JSON list but is not a valid one"),
        ("FROM a\nSHELL sh\n", "SHELL takes a JSON list"),
        ("FROM a\nCOPY x\n", "COPY has too few arguments; it takes at least 2"),
        ('FROM a\nCOPY ["x"]\n', "COPY has too few arguments"),
        ("FROM a\nEXPOSE http\n", "'http' is not a port"),
        ("FROM a\nENV A\n", "ENV 'A' has no value"),
        ("FROM a\nHEALTHCHECK curl x\n", "HEALTHCHECK takes CMD and a command, or NONE"),
        ("FROM a\nONBUILD FROM x\n", "ONBUILD cannot trigger 'FROM'"),
        ("# escape=x\nFROM a\n", "line 1: the escape directive"),
        ("FROM a\nRUN x\x00\n", "line 2: holds the control character U+0000"),
        ("FROM a\n# nice\rRUN evil\n", "line 2: holds the control character U+000D"),
        ("\x1b[2JFROM a\n", "U+001B"),
        ("routes: []\n", "'ROUTES:' is not an instruction"),
        ("x" * (MAX_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_what_no_builder_reads_is_refused(text: str, says: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        check(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"Dockerfile line {caught.value.line}: ")


@given(st.text(alphabet=st.sampled_from("FROMUNaAS \n\\\"'<-E[]#=\t`$")))
def test_any_text_is_accepted_or_refused_in_one_sentence(text: str) -> None:
    try:
        check("FROM a\n" + text)
    except DockerfileError as error:
        assert "\n" not in str(error)
