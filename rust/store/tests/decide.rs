//! How is a proposal decided: once, about what was seen, and never without its audit entry?

use std::time::Duration;

use bot_bottle_store::{Decision, Error, Proposal, Response, Reviewed, Status, Stored, Surface, sha256_hex};

use crate::place::{Place, decide, decision, expiring, proposal};

fn finding(tool: &str) -> Proposal {
    Proposal::new("dev", tool, b"a finding", "", None, None, Some("host + token")).unwrap()
}

#[test]
fn a_decision_its_answer_and_its_audit_entry_say_the_same() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("one\ntwo\n")).unwrap();
    let answer =
        inbox.decide(&Decision { final_file: Some("one\n2\n"), ..decision(&asked, Status::Modified) }).unwrap();
    assert_eq!((answer.status.as_str(), answer.notes.as_str()), ("modified", "as agreed"));
    assert_eq!(answer.final_file.as_deref(), Some("one\n2\n"));
    assert_eq!(answer.payload_sha256.as_deref(), Some(asked.payload_sha256.as_str()));
    assert_eq!(answer.final_sha256, Some(sha256_hex("one\n2\n")));
    assert!(answer.diff.as_ref().unwrap().text().contains("-two\n+2"));
    let entries = place.audit().read_audit_entries(Some("egress-allow"), Some("dev"), None, None).unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let entry = entry.fields();
    assert_eq!((entry.operator_action, entry.decided_by, entry.surface), ("modified", "ann", "cli"));
    assert_eq!((entry.operator_notes, entry.justification), ("as agreed", "because"));
    assert_eq!(
        (entry.proposal_id, Some(entry.diff)),
        (Some(asked.id.as_str()), answer.diff.as_ref().map(|diff| diff.text()))
    );
    assert_eq!(
        (entry.payload_sha256, entry.final_sha256),
        (answer.payload_sha256.as_deref(), answer.final_sha256.as_deref())
    );
    assert_eq!(Some(entry.timestamp), answer.decided_at.as_deref());
    assert_eq!(queue.read_response(&asked.id).unwrap().unwrap().answer(), answer.answer());
    // Both texts are kept.
    assert_eq!(
        place.shell("SELECT proposed_file <> final_file FROM proposals JOIN responses ON proposal_seq = seq"),
        "1"
    );
}

#[test]
fn the_second_decision_is_told_who_was_first() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    decide(&inbox, &asked, Status::Rejected).unwrap();
    for archived in [false, true] {
        let error = decide(&inbox, &asked, Status::Approved).unwrap_err();
        assert_eq!((error.class(), error.exit_code()), ("AlreadyDecidedError", 5));
        let said = error.to_string();
        assert!(["rejected", "ann", "cli", asked.id.as_str()].iter().all(|part| said.contains(part)), "{said}");
        assert_eq!(said.contains("archived"), archived, "{said}");
        queue.archive_proposal(&asked.id).unwrap();
    }
    assert_eq!((place.count("responses"), place.count("audit_entries")), (1, 1));
}

#[test]
fn what_has_ended_otherwise_is_not_decided() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let expired = queue.write_proposal(&expiring("expired", Duration::from_millis(1))).unwrap();
    let withdrawn = queue.write_proposal(&proposal("withdrawn")).unwrap();
    queue.withdraw_proposal(&withdrawn.id, "changed my mind").unwrap();
    let archived = queue.write_proposal(&proposal("archived")).unwrap();
    queue.archive_proposal(&archived.id).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    for (asked, class) in [
        (&expired, "ProposalExpiredError"),
        (&withdrawn, "ProposalWithdrawnError"),
        (&archived, "ProposalWithdrawnError"),
    ] {
        let error = decide(&inbox, asked, Status::Approved).unwrap_err();
        assert_eq!((error.class(), error.exit_code()), (class, 5), "{error}");
    }
    assert!(decide(&inbox, &withdrawn, Status::Approved).unwrap_err().to_string().contains("changed my mind"));
    assert_eq!(decide(&inbox, &proposal("unknown"), Status::Approved).unwrap_err().exit_code(), 4);
    assert_eq!((place.count("responses"), place.count("audit_entries")), (0, 0));
}

#[test]
fn another_text_than_the_one_reviewed_is_refused() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    let other = sha256_hex("y");
    let error = inbox
        .decide(&Decision { reviewed: Reviewed::Payload(&other), ..decision(&asked, Status::Approved) })
        .unwrap_err();
    assert_eq!((error.class(), error.exit_code()), ("StaleReviewError", 5));
    assert!(error.to_string().contains(&asked.payload_sha256), "{error}");
    assert_eq!(
        inbox
            .decide(&Decision { reviewed: Reviewed::Payload("x"), ..decision(&asked, Status::Approved) })
            .unwrap_err()
            .exit_code(),
        2
    );
    // A row whose text is not the one of its hash any more (an edited file) is not what was reviewed either.
    place.shell("DROP TRIGGER proposals_content_is_immutable; UPDATE proposals SET proposed_file = 'evil'");
    assert_eq!(decide(&inbox, &asked, Status::Approved).unwrap_err().class(), "StaleReviewError");
    assert_eq!(place.count("responses"), 0);
}

#[test]
fn findings_are_approved_with_a_reason_or_rejected_never_modified() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    for tool in ["gitleaks-allow", "egress-token-allow"] {
        let asked = queue.write_proposal(&finding(tool)).unwrap();
        for refused in [
            Decision { final_file: Some("x"), ..decision(&asked, Status::Modified) },
            Decision { notes: "", ..decision(&asked, Status::Approved) },
            Decision { notes: " \n", ..decision(&asked, Status::Approved) },
        ] {
            let error = inbox.decide(&refused).unwrap_err();
            assert_eq!((error.class(), error.exit_code()), ("InvalidInputError", 2), "{error}");
        }
        inbox.decide(&Decision { notes: "", ..decision(&asked, Status::Rejected) }).unwrap();
    }
}

#[test]
fn a_grant_goes_with_an_approval_of_something_with_a_fingerprint() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let (plain, granted) = (proposal("x"), finding("egress-token-allow"));
    queue.write_proposal(&plain).unwrap();
    queue.write_proposal(&granted).unwrap();
    for refused in [
        Decision { grant: Some("once"), ..decision(&plain, Status::Approved) },
        Decision { grant: Some("once"), ..decision(&granted, Status::Rejected) },
        Decision { grant: Some("for ever"), ..decision(&granted, Status::Approved) },
    ] {
        assert_eq!(inbox.decide(&refused).unwrap_err().exit_code(), 2);
    }
    assert_eq!(place.count("proposals WHERE state = 'pending'"), 2);
}

#[test]
fn bad_answers_are_refused_before_anything_is_looked_up() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    let long = "x".repeat(bot_bottle_store::MAX_NOTES_BYTES + 1);
    let huge = "x".repeat(bot_bottle_store::MAX_PAYLOAD_BYTES + 1);
    let good = || decision(&asked, Status::Approved);
    for bad in [
        Decision { status: Status::Modified, ..good() },
        Decision { status: Status::Modified, final_file: Some(""), ..good() },
        Decision { status: Status::Modified, final_file: Some(&huge), ..good() },
        Decision { status: Status::Modified, final_file: Some("a\0b"), ..good() },
        Decision { final_file: Some("x"), ..good() },
        Decision { notes: &long, ..good() },
        Decision { notes: "a\0", ..good() },
        Decision { decided_by: Some("a\0"), ..good() },
    ] {
        assert_eq!(inbox.decide(&bad).unwrap_err().exit_code(), 2);
    }
    assert_eq!(queue.list_pending_proposals().unwrap(), [asked]);
}

#[test]
fn a_response_written_through_the_queue_is_a_decision_like_any_other() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    let response = Response::checked(&asked.id, Status::Approved, "fine", None).unwrap();
    assert_eq!(place.queue("other").write_response(&response).unwrap_err().class(), "NotFoundError");
    let written = queue.write_response(&response).unwrap();
    assert_eq!((written.answer(), written.surface.clone()), (response.answer(), Some(Stored::Known(Surface::Api))));
    assert!(matches!(queue.write_response(&response), Err(Error::AlreadyDecided { .. })));
    assert_eq!((place.count("audit_entries"), inbox.changes(0, 10).unwrap().len()), (1, 2));
}
