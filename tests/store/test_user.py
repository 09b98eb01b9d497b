"""Who decided, by the name that the system has for the user, wherever it has it from?"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import Inbox, QueueStore
from needs import cannot
from store_process import Process, decide, proposal

# Answers for the system's directory of users, as LDAP or systemd-homed would.
DIRECTORY = """
#include <pwd.h>
#include <string.h>

int getpwuid_r(uid_t uid, struct passwd *found, char *space, size_t size, struct passwd **result) {
    *found = (struct passwd){.pw_name = strcpy(space, "%s"), .pw_uid = uid};
    found->pw_passwd = found->pw_gecos = found->pw_dir = found->pw_shell = strchr(space, 0);
    *result = *space ? found : 0;
    return 0;
}
"""


def decided_by(db: str, known: str) -> None:
    from bot_bottle import Inbox

    inbox = Inbox(db)
    review = inbox.review(known)
    print(inbox.decide(known, "approved", review_sha256=review.review_sha256).decided_by)


def test_a_decision_is_the_user_s(queue: QueueStore, inbox: Inbox) -> None:
    assert decide(inbox, queue.write_proposal(proposal())).decided_by == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")
@pytest.mark.parametrize(("name", "told"), [("ann", "ann"), ("", f"uid:{os.getuid()}")], ids=["known", "unknown"])
def test_a_user_that_no_file_knows_is_named_as_the_system_does(
    db: Path, queue: QueueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    if shutil.which("cc") is None:
        cannot("needs a C compiler")
    library = tmp_path / "directory.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, "-xc", "-"], input=DIRECTORY % name, text=True, check=True)
    written = queue.write_proposal(proposal())
    monkeypatch.setenv("LD_PRELOAD", str(library))
    with Process(decided_by, db, written.id) as decider:
        assert decider.ends() == f"{told}\n"
