//! What becomes of a proposal in the queue?

use std::time::Duration;

use bot_bottle_store::{Error, MAX_NOTES_BYTES, MAX_PENDING_PER_BOTTLE, Proposal, State, Status};

use crate::place::{Place, decide, eventually, expiring, proposal, proposal_of};

fn against(text: &str, base: &str) -> Proposal {
    Proposal::new("dev", "egress-allow", text.as_bytes(), "because", Some(base), None, None).unwrap()
}

#[test]
fn what_is_written_is_read_and_listed_in_order_of_arrival() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written: Vec<Proposal> = (0..5).map(|n| queue.write_proposal(&proposal(&n.to_string())).unwrap()).collect();
    assert_eq!(queue.list_pending_proposals().unwrap(), written);
    assert_eq!(queue.read_proposal(&written[3].id).unwrap().as_ref(), Some(&written[3]));
    let items: Vec<String> = queue.list_items(2).unwrap().into_iter().map(|item| item.proposal.head.id).collect();
    assert_eq!(items, [written[4].id.clone(), written[3].id.clone()]);
    let other = place.queue("other");
    assert!(
        other.list_pending_proposals().unwrap().is_empty() && other.read_proposal(&written[0].id).unwrap().is_none()
    );
}

#[test]
fn writing_the_same_id_again_changes_nothing() {
    let place = Place::new();
    let (queue, asked) = (place.queue("dev"), proposal("x"));
    for _ in 0..3 {
        assert_eq!(queue.write_proposal(&asked).unwrap(), asked);
    }
    let twin = proposal("x");
    for _ in 0..3 {
        assert_eq!(queue.write_proposal(&twin).unwrap(), asked);
    }
    assert_eq!((place.count("proposals"), place.count("aliases"), place.count("changes")), (1, 1, 1));
    decide(&place.inbox(), &asked, Status::Rejected).unwrap();
    assert_eq!(queue.write_proposal(&asked).unwrap(), asked);
    assert_eq!(queue.list_pending_proposals().unwrap(), []);

    let mut other = proposal("y");
    other.head.id.clone_from(&asked.id);
    assert_eq!(queue.write_proposal(&other).unwrap_err().class(), "InvalidProposalError");
    let mut other = proposal_of("other", "x");
    other.head.id.clone_from(&asked.id);
    assert_eq!(place.queue("other").write_proposal(&other).unwrap_err().class(), "InvalidProposalError");
}

#[test]
fn another_bottle_s_proposal_is_refused() {
    let place = Place::new();
    let error = place.queue("dev").write_proposal(&proposal_of("other", "x")).unwrap_err();
    assert_eq!(error.class(), "InvalidProposalError");
    assert_eq!(error.to_string(), "bottle_slug is other, but this queue is that of dev");
    assert_eq!(place.names(), [""; 0], "the refusal created something");
}

#[test]
fn only_what_asks_the_same_against_the_same_file_coalesces() {
    let place = Place::new();
    let (queue, hash) = (place.queue("dev"), "a".repeat(64));
    let one = queue.write_proposal(&against("x", &hash)).unwrap();
    assert_eq!(queue.write_proposal(&against("x", &hash)).unwrap(), one);
    let otherwise = Proposal::new("dev", "egress-block", b"x", "", Some(&hash), None, None).unwrap();
    for different in [against("y", &hash), against("x", &"b".repeat(64)), proposal("x"), otherwise] {
        assert_eq!(queue.write_proposal(&different).unwrap(), different);
    }
    let elsewhere = Proposal::new("other", "egress-allow", b"x", "", Some(&hash), None, None).unwrap();
    let other = place.queue("other").write_proposal(&elsewhere).unwrap();
    assert_eq!(other, elsewhere);
    assert_eq!(place.inbox().read(&other.id).unwrap().queue_key, "other");
}

#[test]
fn what_is_about_another_secret_does_not_coalesce_and_another_expiry_makes_no_difference() {
    let place = Place::new();
    let queue = place.queue("dev");
    let about = |fingerprint, seconds: Option<u64>| {
        let expires_in = seconds.map(Duration::from_secs);
        Proposal::new("dev", "egress-token-allow", b"x", "", None, expires_in, fingerprint).unwrap()
    };
    let first = queue.write_proposal(&about(Some("host one"), Some(60))).unwrap();
    for seconds in [None, Some(30), Some(600)] {
        assert_eq!(queue.write_proposal(&about(Some("host one"), seconds)).unwrap(), first);
    }
    let (other, none) = (about(Some("host two"), Some(60)), about(None, Some(60)));
    assert_eq!(queue.write_proposal(&other).unwrap(), other);
    assert_eq!(queue.write_proposal(&none).unwrap(), none);
    assert_eq!((place.count("proposals"), place.count("aliases")), (3, 3));
    // Nor does an id that is an alias stand for something else afterwards.
    let mut again = about(Some("host one"), None);
    queue.write_proposal(&again).unwrap();
    again.head.fingerprint = Some("host two".to_owned());
    assert_eq!(queue.write_proposal(&again).unwrap_err().class(), "InvalidProposalError");
}

/// What was stale cannot be approved; asked again, against the file as it is, it can.
#[test]
fn a_stale_proposal_does_not_swallow_its_successor() {
    let place = Place::new();
    let file = place.managed("old\n");
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let stale = queue.write_proposal(&proposal("new\n")).unwrap();
    std::fs::write(&file, "changed\n").unwrap();
    assert_eq!(decide(&inbox, &stale, Status::Approved).unwrap_err().class(), "StaleReviewError");
    let again = queue.write_proposal(&proposal("new\n")).unwrap();
    assert_ne!(again.id, stale.id);
    decide(&inbox, &again, Status::Approved).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
}

#[test]
fn an_alias_leads_to_the_row_everywhere() {
    let place = Place::new();
    let (queue, inbox, twin) = (place.queue("dev"), place.inbox(), proposal("x"));
    let row = queue.write_proposal(&proposal("x")).unwrap();
    queue.write_proposal(&twin).unwrap();
    assert_eq!(queue.read_proposal(&twin.id).unwrap().as_ref(), Some(&row));
    assert_eq!(inbox.read(&twin.id).unwrap().proposal, row);
    assert_eq!(inbox.read(&twin.id[..twin.id.len() - 1]).unwrap().proposal, row);
    decide(&inbox, &twin, Status::Approved).unwrap();
    assert_eq!(queue.read_response(&twin.id).unwrap().unwrap().status, Status::Approved);
    assert_eq!(queue.withdraw_proposal(&twin.id, "").unwrap_err().class(), "AlreadyDecidedError");
    queue.archive_proposal(&twin.id).unwrap();
    assert!(inbox.read(&row.id).unwrap().archived_at.is_some());
}

#[test]
fn a_row_is_withdrawn_when_the_last_has_left() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked: Vec<Proposal> = (0..3).map(|_| proposal("x")).collect();
    for one in &asked {
        queue.write_proposal(one).unwrap();
    }
    for (left, one) in asked.iter().enumerate() {
        assert_eq!(inbox.pending(None).unwrap()[0].requests, 3 - left as i64);
        for _ in 0..2 {
            queue.withdraw_proposal(&one.id, "enough").unwrap();
        }
    }
    assert!(inbox.pending(None).unwrap().is_empty());
    let item = inbox.read(&asked[2].id).unwrap();
    assert_eq!((item.state.as_str(), item.withdrawn_reason.as_deref()), ("withdrawn", Some("enough")));
    assert_eq!(place.count("changes WHERE kind = 'withdrawn'"), 1);
}

#[test]
fn archiving_what_others_still_ask_for_leaves_it_to_them() {
    let place = Place::new();
    let (queue, inbox, one, two) = (place.queue("dev"), place.inbox(), proposal("x"), proposal("x"));
    queue.write_proposal(&one).unwrap();
    queue.write_proposal(&two).unwrap();
    queue.archive_proposal(&one.id).unwrap();
    assert_eq!(inbox.pending(None).unwrap()[0].requests, 1);
    queue.archive_proposal(&two.id).unwrap();
    let item = inbox.read(&one.id).unwrap();
    assert_eq!((item.state.as_str(), item.archived_at.is_some()), ("withdrawn", true));
}

#[test]
fn archiving_withdraws_what_is_pending_and_keeps_what_is_decided() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let (pending, decided) = (proposal("pending"), proposal("decided"));
    for asked in [&pending, &decided] {
        queue.write_proposal(asked).unwrap();
    }
    decide(&inbox, &decided, Status::Approved).unwrap();
    for asked in [&pending, &decided] {
        queue.archive_proposal(&asked.id).unwrap();
        queue.archive_proposal(&asked.id).unwrap();
    }
    assert!(inbox.pending(None).unwrap().is_empty());
    assert_eq!(inbox.read(&pending.id).unwrap().state, State::Withdrawn);
    assert_eq!(queue.read_proposal(&decided.id).unwrap(), Some(decided.clone()));
    assert_eq!(queue.read_response(&decided.id).unwrap().unwrap().status, Status::Approved);
    assert_eq!(place.count("changes WHERE kind = 'archived'"), 2);
    let unknown = proposal("never written").head.id;
    assert_eq!(queue.archive_proposal(&unknown).unwrap_err().class(), "NotFoundError");
    assert_eq!(queue.withdraw_proposal(&unknown, "").unwrap_err().class(), "NotFoundError");
}

#[test]
fn another_queue_s_proposal_is_not_there_to_withdraw_or_archive() {
    let place = Place::new();
    let written = place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let other = place.queue("other");
    assert_eq!(other.withdraw_proposal(&written.id, "").unwrap_err().class(), "NotFoundError");
    assert_eq!(other.archive_proposal(&written.id).unwrap_err().class(), "NotFoundError");
    assert!(other.inspect(&written.id).unwrap().is_none() && other.read_response(&written.id).unwrap().is_none());
}

#[test]
fn what_has_expired_is_so_wherever_it_is_read_before_anybody_says_so() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    place.bottles().register("dev", "docker", "mount", &[]).unwrap();
    let written = queue.write_proposal(&expiring("x", Duration::from_secs(1))).unwrap();
    assert_eq!(inbox.pending(None).unwrap().len(), 1);
    eventually(|| inbox.pending(None).unwrap().is_empty());
    assert_eq!(place.shell("SELECT state FROM proposals"), "pending");
    assert!(queue.list_pending_proposals().unwrap().is_empty() && inbox.pending(Some("dev")).unwrap().is_empty());
    assert_eq!(queue.inspect(&written.id).unwrap().unwrap().state, State::Expired);
    assert_eq!(
        (&inbox.stats().unwrap()["pending"], &inbox.stats().unwrap()["by_state"]["expired"]),
        (&0.into(), &1.into())
    );
    assert_eq!(place.bottles().read_bottle("dev").unwrap().unwrap().pending, 0);
    assert_eq!(place.bottles().stop("dev", "").unwrap(), 0);
    assert_eq!(queue.withdraw_proposal(&written.id, "").unwrap_err().class(), "ProposalExpiredError");
    // It makes room for the same request.
    let again = queue.write_proposal(&proposal("x")).unwrap();
    assert_ne!(again.id, written.id);
    assert_eq!(place.count("changes WHERE kind = 'expired'"), 1);
}

#[test]
fn a_clock_that_was_set_back_loses_nothing() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    // Written when the clock was an hour ahead: its times are in the future.
    let ahead = place.shell("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 hour')");
    let asked =
        Proposal::checked(&bot_bottle_store::new_id(), "dev", "egress-allow", b"x", "", &ahead, None, None, None)
            .unwrap();
    queue.write_proposal(&asked).unwrap();
    queue.write_proposal(&proposal("y")).unwrap();
    let listed = queue.list_pending_proposals().unwrap().into_iter().map(|asked| asked.proposed_file);
    assert_eq!(listed.collect::<Vec<_>>(), ["x", "y"], "the order is that of arrival");
    let answer = decide(&inbox, &asked, Status::Approved).unwrap();
    // Evidence has this clock's time, whatever a requester's clock said.
    assert!(answer.head.decided_at.unwrap() < asked.arrival_timestamp);
    assert_eq!(inbox.changes(0, 10).unwrap().len(), 3);
    place.audit().verify(None).unwrap();

    // One that expires before it arrived by that clock is pending until then by this one, and can be decided.
    let soon = place.shell("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+5 minutes')");
    let asked = Proposal::checked(
        &bot_bottle_store::new_id(),
        "dev",
        "egress-allow",
        b"z",
        "",
        &ahead,
        None,
        Some(&soon),
        None,
    )
    .unwrap();
    queue.write_proposal(&asked).unwrap();
    decide(&inbox, &asked, Status::Approved).unwrap();
}

#[test]
fn a_queue_has_a_limit_and_says_so() {
    let place = Place::new();
    let queue = place.queue("dev");
    for n in 0..MAX_PENDING_PER_BOTTLE {
        queue.write_proposal(&proposal(&n.to_string())).unwrap();
    }
    let error = queue.write_proposal(&proposal("one more")).unwrap_err();
    assert_eq!((error.class(), error.exit_code()), ("InvalidProposalError", 2));
    assert!(error.to_string().contains("200"), "{error}");
    // The same once more needs no room, another queue has its own, and an answer makes some.
    queue.write_proposal(&proposal("0")).unwrap();
    place.queue("other").write_proposal(&proposal_of("other", "one more")).unwrap();
    decide(&place.inbox(), &queue.list_pending_proposals().unwrap()[0], Status::Rejected).unwrap();
    queue.write_proposal(&proposal("one more")).unwrap();
}

#[test]
fn identical_requests_have_a_limit_too() {
    let place = Place::new();
    let queue = place.queue("dev");
    for _ in 0..=MAX_PENDING_PER_BOTTLE {
        queue.write_proposal(&proposal("the same")).unwrap();
    }
    assert_eq!(queue.write_proposal(&proposal("the same")).unwrap_err().class(), "InvalidProposalError");
}

#[test]
fn reasons_and_keys_keep_their_rules() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&proposal("x")).unwrap();
    for reason in ["x".repeat(MAX_NOTES_BYTES + 1), "a\0b".to_owned()] {
        assert_eq!(queue.withdraw_proposal(&written.id, &reason).unwrap_err().exit_code(), 2);
    }
    for key in ["", "Dev", "../x", "a b", &"a".repeat(64)] {
        assert!(bot_bottle_store::QueueStore::new(key, Some(&place.db)).is_err(), "{key:?}");
    }
    assert_eq!(queue.list_pending_proposals().unwrap(), [written]);
}

#[test]
fn sql_itself_refuses_to_change_what_was_asked_or_answered() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    queue.write_proposal(&proposal("y")).unwrap();
    decide(&inbox, &asked, Status::Approved).unwrap();
    for sql in [
        "UPDATE proposals SET proposed_file = 'evil'",
        "UPDATE proposals SET payload_sha256 = hex(zeroblob(32))",
        "UPDATE proposals SET expires_at = NULL",
        "UPDATE proposals SET state = 'pending' WHERE state = 'approved'",
        "UPDATE proposals SET state = 'rejected' WHERE state = 'approved'",
        "UPDATE proposals SET state = 'unheard of' WHERE state = 'pending'",
        "UPDATE responses SET status = 'rejected'",
        "INSERT INTO responses SELECT * FROM responses",
        "INSERT INTO responses (proposal_seq, status, notes, payload_sha256, decided_by, surface, decided_at,
             review_sha256, key_id, signature)
         VALUES (99, 'approved', '', '', '', 'cli', '', '', '', '')",
    ] {
        place.try_shell(sql).expect_err(sql);
    }
    assert_eq!(place.shell("SELECT state, proposed_file FROM proposals ORDER BY seq"), "approved|x\npending|y");
}

#[test]
fn ids_may_be_shortened_as_long_as_they_are_unique() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let ids = ["0190a000-0000-7000-8000-00000000000a", "0190a000-0000-7000-8000-00000000000b"];
    for id in ids {
        let asked =
            Proposal::checked(id, "dev", "egress-allow", id.as_bytes(), "", &bot_bottle_store::now(), None, None, None);
        queue.write_proposal(&asked.unwrap()).unwrap();
    }
    assert_eq!(inbox.read(ids[0]).unwrap().proposal.id, ids[0]);
    assert_eq!(inbox.read(&ids[1].to_uppercase()).unwrap().proposal.id, ids[1]);
    match inbox.read("0190a000").unwrap_err() {
        error @ Error::Ambiguous { .. } => assert!(ids.iter().all(|id| error.to_string().contains(id)), "{error}"),
        error => panic!("{error}"),
    }
    assert_eq!(inbox.read("0190b").unwrap_err().class(), "NotFoundError");
    for bad in ["", "019", "0190%", "zzzz"] {
        assert_eq!(inbox.read(bad).unwrap_err().exit_code(), 2, "{bad:?}");
    }
}

#[test]
fn history_pages_back_and_a_change_feed_goes_on() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let written: Vec<Proposal> = (0..7).map(|n| queue.write_proposal(&proposal(&n.to_string())).unwrap()).collect();
    let page = |before: Option<&str>| -> Vec<String> {
        inbox.history(Some("dev"), 3, before).unwrap().into_iter().map(|item| item.proposal.head.id).collect()
    };
    let ids = |numbers: &[usize]| numbers.iter().map(|n| written[*n].id.clone()).collect::<Vec<_>>();
    assert_eq!(page(None), ids(&[6, 5, 4]));
    assert_eq!(page(Some(&written[4].id)), ids(&[3, 2, 1]));
    assert_eq!(page(Some(&written[1].id)), ids(&[0]));
    let mut since = 0;
    let mut seen = Vec::new();
    loop {
        let changes = inbox.changes(since, 2).unwrap();
        let Some(last) = changes.last() else { break };
        since = last.seq;
        seen.extend(changes.into_iter().map(|change| change.proposal_id));
    }
    assert_eq!(seen, written.iter().map(|asked| asked.id.clone()).collect::<Vec<_>>());
}
