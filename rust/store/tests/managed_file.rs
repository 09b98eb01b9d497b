//! How does an approved file come into effect, and when is it left alone? (Crashes: `crash`.)

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc;
use std::time::Duration;

use bot_bottle_store::{Decision, Error, Proposal, Status, sha256_hex};

use crate::place::{Place, decide, decision, names, proposal};

#[test]
fn an_approval_is_in_effect_when_it_is_heard_of() {
    let place = Place::new();
    let file = place.managed("old\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("new\n")).unwrap();
    let (done, end) = mpsc::channel();
    let seen = file.clone();
    let at_the_end = move |result: Result<_, Error>| {
        done.send((result.is_ok(), fs::read_to_string(&seen).unwrap())).unwrap();
    };
    let _wait = queue.begin_wait(&asked.id, None, at_the_end).unwrap();
    let answer = decide(&inbox, &asked, Status::Approved).unwrap();
    assert!(answer.applied_at >= answer.decided_at);
    assert_eq!(end.recv_timeout(Duration::from_secs(20)).unwrap(), (true, "new\n".to_owned()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(names(file.parent().unwrap()), ["routes.yaml"]);
    let entry = place.audit().read_audit_entries(None, None, None, None).unwrap().remove(0);
    assert!(entry.fields().diff.contains("-old\n+new\n"), "{}", entry.fields().diff);
    let kinds: Vec<String> = inbox.changes(0, 10).unwrap().into_iter().map(|change| change.kind.into()).collect();
    assert_eq!(kinds, ["proposed", "approved", "applied"]);
}

#[test]
fn a_modification_puts_the_final_text_in_place_and_a_rejection_nothing() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("new\n")).unwrap();
    inbox.decide(&Decision { final_file: Some("better\n"), ..decision(&asked, Status::Modified) }).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "better\n");
    let asked = queue.write_proposal(&proposal("worse\n")).unwrap();
    decide(&inbox, &asked, Status::Rejected).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "better\n");
    assert_eq!(inbox.read(&asked.id).unwrap().apply_state, None);
}

#[test]
fn a_file_that_changed_since_the_proposal_is_not_decided_over() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("new\n")).unwrap();
    fs::write(&file, "somebody else's\n").unwrap();
    match decide(&inbox, &asked, Status::Approved).unwrap_err() {
        Error::StaleFile { expected, actual, .. } => {
            assert_eq!((expected, actual), (Some(sha256_hex("old\n")), Some(sha256_hex("somebody else's\n"))));
        }
        error => panic!("{error}"),
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody else's\n");
    assert_eq!((place.count("responses"), names(file.parent().unwrap())), (0, vec!["routes.yaml".to_owned()]));
    assert_eq!(queue.list_pending_proposals().unwrap(), [asked]);
}

#[test]
fn the_hash_a_proposal_names_is_the_one_that_counts() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let against = |hash: &str| Proposal::new("dev", "egress-allow", b"new\n", "", Some(hash), None, None).unwrap();
    let stale = queue.write_proposal(&against(&sha256_hex("older\n"))).unwrap();
    assert_eq!(decide(&inbox, &stale, Status::Approved).unwrap_err().class(), "StaleReviewError");
    let current = queue.write_proposal(&against(&sha256_hex("old\n"))).unwrap();
    decide(&inbox, &current, Status::Approved).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
}

/// A sidecar in a container has the database, not the host's files.
#[test]
fn a_file_that_cannot_be_seen_is_taken_as_the_host_last_saw_it() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox, away) = (place.queue("dev"), place.inbox(), place.dir.join("away"));
    std::fs::rename(file.parent().unwrap(), &away).unwrap();
    let written = queue.write_proposal(&proposal("new\n")).unwrap();
    std::fs::rename(&away, file.parent().unwrap()).unwrap();
    decide(&inbox, &written, Status::Approved).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
    // That was the host as well.
    std::fs::rename(file.parent().unwrap(), &away).unwrap();
    let written = queue.write_proposal(&proposal("newer\n")).unwrap();
    std::fs::rename(&away, file.parent().unwrap()).unwrap();
    decide(&inbox, &written, Status::Approved).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "newer\n");
}

#[test]
fn a_file_that_is_not_there_yet_is_made_and_one_that_went_is_stale() {
    let place = Place::new();
    let file = place.managed("");
    fs::remove_file(&file).unwrap();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    decide(&inbox, &queue.write_proposal(&proposal("first\n")).unwrap(), Status::Approved).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "first\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let asked = queue.write_proposal(&proposal("second\n")).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(decide(&inbox, &asked, Status::Approved).unwrap_err().class(), "StaleReviewError");
    assert!(!file.exists());
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("new\n")).unwrap();
    let target = place.dir.join("target");
    fs::write(&target, "old\n").unwrap();
    let fifo = || rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
    let replacements: [(&str, &dyn Fn()); 3] = [
        ("symlink", &|| symlink(&target, &file).unwrap()),
        ("regular", &|| fs::create_dir(&file).unwrap()),
        ("regular", &fifo),
    ];
    for (said, replace) in replacements {
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        replace();
        let error = decide(&inbox, &asked, Status::Approved).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, "old\n").unwrap();
    // The same directory through a link.
    fs::rename(place.dir.join("files"), place.dir.join("moved")).unwrap();
    symlink(place.dir.join("moved"), place.dir.join("files")).unwrap();
    assert!(decide(&inbox, &asked, Status::Approved).unwrap_err().to_string().contains("symlink"));
    assert_eq!((fs::read_to_string(&target).unwrap().as_str(), place.count("responses")), ("old\n", 0));
}

#[test]
fn a_second_operator_waits_for_the_first_and_is_then_too_late() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, one, two) = (place.queue("dev"), place.inbox(), place.inbox());
    let first = queue.write_proposal(&proposal("one\n")).unwrap();
    let second = queue.write_proposal(&proposal("two\n")).unwrap();
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| decide(&two, &second, Status::Approved));
        (decide(&one, &first, Status::Approved), other.join().unwrap())
    });
    let won = fs::read_to_string(&file).unwrap();
    match (first, second) {
        (Ok(_), Err(error)) => assert_eq!((won.as_str(), error.class()), ("one\n", "StaleReviewError")),
        (Err(error), Ok(_)) => assert_eq!((won.as_str(), error.class()), ("two\n", "StaleReviewError")),
        other => panic!("{other:?}"),
    }
    assert_eq!((place.count("responses"), place.count("audit_entries")), (1, 1));
}

#[test]
fn a_wait_for_a_decision_that_is_not_in_effect_costs_nothing() {
    let place = Place::new();
    place.managed("old\n");
    let queue = place.queue("dev");
    let asked = queue.write_proposal(&crate::place::expiring("new\n", Duration::from_secs(1))).unwrap();
    let (done, end) = mpsc::channel();
    let _wait = queue.begin_wait(&asked.id, None, move |result| done.send(result.map(drop)).unwrap()).unwrap();
    place.shell(
        "BEGIN; UPDATE proposals SET state = 'approved';
         INSERT INTO responses (proposal_seq, status, notes, payload_sha256, decided_by, surface, decided_at,
             review_sha256, key_id, signature)
           SELECT seq, 'approved', '', payload_sha256, 'ann', 'cli', arrival_timestamp, '', '', '' FROM proposals;
         INSERT INTO applies (proposal_seq, path, expected_sha256, final_sha256, updated_at)
           SELECT seq, '/nowhere/x', '', payload_sha256, arrival_timestamp FROM proposals;
         COMMIT",
    );
    // Long past the time at which it would have expired it is neither expired nor answered.
    assert!(end.recv_timeout(Duration::from_millis(1900)).is_err());
    place.shell("UPDATE applies SET state = 'applied'");
    end.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}
