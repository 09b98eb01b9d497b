//! What does an operator see before deciding, and is it what is decided about?

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use bot_bottle_store::{Decision, Error, Proposal, Review, Reviewed, State, Status, sha256_hex};

use crate::place::{Place, decision, eventually, names, proposal};

/// The kinds of what is odd about it.
fn odd(review: &Review) -> Vec<&str> {
    review.odd.iter().map(|odd| &*odd.kind).collect()
}

/// The hash as `docs/states.md` describes it.
fn by_the_page(fields: &[Option<&str>]) -> String {
    let fields = fields.iter().map(|field| field.map_or("~".to_owned(), |text| format!("{}:{text},", text.len())));
    sha256_hex(fields.collect::<String>())
}

fn reviewed<'a>(asked: &'a Proposal, review: &'a Review, status: Status) -> Decision<'a> {
    Decision { reviewed: Reviewed::Review(&review.review_sha256), ..decision(asked, status) }
}

#[test]
fn a_review_has_the_file_as_it_is_and_the_change() {
    let place = Place::new();
    let file = place.managed("host: pypi.org\n");
    let inbox = place.inbox();
    let asked = place.queue("dev").write_proposal(&proposal("host: pypi.com\n")).unwrap();
    let review = inbox.review(&asked.id[..35]).unwrap();
    assert_eq!(review.item.proposal, asked);
    assert_eq!(review.current_file.as_deref(), Some("host: pypi.org\n"));
    assert_eq!(review.current_sha256, Some(sha256_hex("host: pypi.org\n")));
    let parts = &review.hunks.as_ref().unwrap()[0].parts;
    let parts: Vec<_> = parts.iter().map(|part| (&*part.kind, &*part.text, &*part.changed)).collect();
    assert_eq!(parts, [("removed", "host: pypi.org\n", &[(6, 14)][..]), ("added", "host: pypi.com\n", &[(6, 14)][..])]);
    assert_eq!(odd(&review), Vec::<&str>::new());
    let (path, base) = (file.to_str().unwrap(), sha256_hex("host: pypi.org\n"));
    let fields = ["bot-bottle/review/1", &asked.id, "dev", "egress-allow", &asked.payload_sha256, path, &base];
    let fields: Vec<_> = fields.into_iter().map(Some).chain([None, None, Some("0")]).collect();
    assert_eq!(review.review_sha256, by_the_page(&fields));
    let answer = inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap();
    assert_eq!(answer.review_sha256.as_ref(), Some(&review.review_sha256));
    assert_eq!(fs::read_to_string(&file).unwrap(), "host: pypi.com\n");
}

#[test]
fn a_review_without_a_managed_file_covers_what_a_grant_would_be_about() {
    let place = Place::new();
    let asked = Proposal::new("dev", "gitleaks-allow", b"finding", "", None, None, Some("rule:abc")).unwrap();
    let asked = place.queue("dev").write_proposal(&asked).unwrap();
    let review = place.inbox().review(&asked.id).unwrap();
    let fields = ["bot-bottle/review/1", &asked.id, "dev", "gitleaks-allow", &asked.payload_sha256].map(Some);
    assert_eq!(
        review.review_sha256,
        by_the_page(&[&fields[..], &[None, None, Some("rule:abc"), None, Some("0")]].concat())
    );
    assert_eq!((review.hunks, review.current_sha256), (None, None));
    place.inbox().decide(&reviewed(&asked, &place.inbox().review(&asked.id).unwrap(), Status::Approved)).unwrap();
}

#[test]
fn another_path_than_the_reviewed_one_is_not_decided_over() {
    let place = Place::new();
    let file = place.managed("old\n");
    let other = file.with_file_name("bashrc");
    fs::write(&other, "old\n").unwrap();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let inbox = place.inbox();
    let review = inbox.review(&asked.id).unwrap();
    let swap = format!("UPDATE managed_files SET path = '{}'", other.display());
    for status in [Status::Approved, Status::Rejected] {
        place.shell(&swap);
        let error = inbox.decide(&reviewed(&asked, &review, status)).unwrap_err();
        assert!(matches!(&error, Error::Unverified { .. }), "{error}");
        assert_eq!(odd(&inbox.review(&asked.id).unwrap()), ["damaged"]);
        place.shell(&format!("UPDATE managed_files SET path = '{}'", file.display()));
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "old\n");
    assert_eq!(inbox.read(&asked.id).unwrap().state, State::Pending);
    inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap();
}

#[test]
fn another_payload_or_tool_than_the_reviewed_one_is_not_decided_over() {
    let place = Place::new();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let inbox = place.inbox();
    let review = inbox.review(&asked.id).unwrap();
    let evil = sha256_hex("evil\n");
    for change in [
        format!("proposed_file = 'evil' || char(10), payload_sha256 = '{evil}'"),
        "proposed_file = 'evil' || char(10)".to_owned(),
        "tool = 'egress-block'".to_owned(),
        "bottle_slug = 'prod'".to_owned(),
        "fingerprint = 'x'".to_owned(),
    ] {
        let saved = "CREATE TABLE saved AS SELECT * FROM proposals";
        place.shell(&format!(
            "{saved}; DROP TRIGGER IF EXISTS proposals_content_is_immutable; UPDATE proposals SET {change}"
        ));
        let error = inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap_err();
        assert_eq!(error.class(), "StaleReviewError", "{change}: {error}");
        place.shell(
            "UPDATE proposals SET (proposed_file, payload_sha256, tool, bottle_slug, fingerprint) =
                 (SELECT proposed_file, payload_sha256, tool, bottle_slug, fingerprint FROM saved);
             DROP TABLE saved",
        );
    }
    inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap();
}

#[test]
fn a_payload_that_does_not_fit_its_hash_is_damaged_and_can_only_be_rejected() {
    let place = Place::new();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    place.shell("DROP TRIGGER proposals_content_is_immutable; UPDATE proposals SET proposed_file = 'evil'");
    let inbox = place.inbox();
    let review = inbox.review(&asked.id).unwrap();
    assert_eq!(odd(&review), ["damaged"]);
    let error = inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap_err();
    assert!(matches!(error, Error::StalePayload { .. }), "{error}");
    inbox.decide(&reviewed(&asked, &review, Status::Rejected)).unwrap();
}

#[test]
fn without_a_base_the_file_as_it_was_reviewed_is_what_is_replaced() {
    let place = Place::new();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let file = place.managed("old\n");
    let inbox = place.inbox();
    let review = inbox.review(&asked.id).unwrap();
    assert_eq!(review.item.base_sha256, None);
    fs::write(&file, "somebody else's\n").unwrap();
    let error = inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap_err();
    assert!(matches!(error, Error::StaleReview { .. }), "{error}");
    let review = inbox.review(&asked.id).unwrap();
    inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
}

#[test]
fn a_changed_file_is_said_to_be_stale_and_the_question_can_still_be_rejected() {
    let place = Place::new();
    let file = place.managed("old\n");
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let inbox = place.inbox();
    let before = inbox.review(&asked.id).unwrap();
    fs::write(&file, "somebody else's\n").unwrap();
    let review = inbox.review(&asked.id).unwrap();
    assert_eq!(odd(&review), ["stale"]);
    assert_eq!(review.review_sha256, before.review_sha256);
    assert!(matches!(inbox.decide(&reviewed(&asked, &review, Status::Approved)), Err(Error::StaleFile { .. })));
    inbox.decide(&reviewed(&asked, &review, Status::Rejected)).unwrap();
}

#[test]
fn a_file_that_cannot_be_compared_is_said_to_be_so_at_once() {
    let place = Place::new();
    let file = place.managed("old\n");
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let inbox = place.inbox();
    let make: [&dyn Fn(); 5] = [
        &|| fs::write(&file, b"ab\xff").unwrap(),
        &|| fs::write(&file, vec![b'x'; (4 << 20) + 1]).unwrap(),
        &|| symlink("/etc/hostname", &file).unwrap(),
        &|| fs::create_dir(&file).unwrap(),
        &|| rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap(),
    ];
    for make in make {
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        make();
        let review = inbox.review(&asked.id).unwrap();
        assert_eq!(odd(&review), ["not-compared"]);
        assert!(review.current_problem.is_some());
        assert_eq!((review.current_file, review.hunks), (None, None));
    }
    fs::remove_file(&file).unwrap();
    let review = inbox.review(&asked.id).unwrap();
    assert_eq!((odd(&review), review.current_sha256.as_deref()), (vec!["stale"], Some("")));
}

#[test]
fn letters_that_deceive_are_named_wherever_the_agent_wrote_them() {
    let place = Place::new();
    let asked = Proposal::new("dev", "egress-allow", "p\u{430}ypal.com".as_bytes(), "a\u{200b}", None, None, None);
    let asked = place.queue("dev").write_proposal(&asked.unwrap()).unwrap();
    let review = place.inbox().review(&asked.id).unwrap();
    assert_eq!(odd(&review), ["look-alike", "invisible"]);
    assert!(review.odd[0].message.contains("payload") && review.odd[1].message.contains("justification"));
}

#[test]
fn a_review_of_a_modification_shows_what_the_operator_changed() {
    let place = Place::new();
    let asked = place.queue("dev").write_proposal(&proposal("one\ntwo\n")).unwrap();
    let inbox = place.inbox();
    inbox.decide(&Decision { final_file: Some("one\n2\n"), ..decision(&asked, Status::Modified) }).unwrap();
    let hunks = inbox.review(&asked.id).unwrap().hunks.unwrap();
    let parts: Vec<_> = hunks[0].parts.iter().map(|part| (&*part.kind, &*part.text)).collect();
    assert_eq!(parts, [("same", "one\n"), ("removed", "two\n"), ("added", "2\n")]);
}

#[test]
fn what_changes_between_the_look_and_the_commit_is_not_decided_over() {
    let place = Place::new();
    let file = place.managed("old\n");
    let other = file.with_file_name("bashrc");
    fs::write(&other, "old\n").unwrap();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    let inbox = place.inbox();
    let review = inbox.review(&asked.id).unwrap();
    // Another process has the write lock while the operator's one looks, stages the file and waits for it.
    let mut holder = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(&place.db)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = holder.stdin.take().unwrap();
    let mut from = BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    to.write_all(b"BEGIN IMMEDIATE; SELECT 'locked';\n").unwrap();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let error = std::thread::scope(|scope| {
        let deciding = scope.spawn(|| inbox.decide(&reviewed(&asked, &review, Status::Approved)).unwrap_err());
        eventually(|| names(file.parent().unwrap()).iter().any(|name| name.contains(&asked.id)));
        writeln!(to, "UPDATE managed_files SET path = '{}'; COMMIT;", other.display()).unwrap();
        drop(to);
        deciding.join().unwrap()
    });
    assert!(holder.wait().unwrap().success());
    assert!(matches!(&error, Error::StaleReview { .. }), "{error}");
    for file in [&file, &other] {
        assert_eq!(fs::read_to_string(file).unwrap(), "old\n");
    }
    assert_eq!((place.count("responses"), place.count("audit_entries")), (0, 0));
    assert_eq!(names(file.parent().unwrap()), ["bashrc", "routes.yaml"], "what was staged is gone");
}
