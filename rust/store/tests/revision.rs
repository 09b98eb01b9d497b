//! How does a requester put a proposal in the place of another?

use std::time::Duration;

use bot_bottle_store::{Error, Proposal, Question, Result, Status, Surface, new_id};

use crate::place::{Place, decide, proposal, proposal_of};

fn revising(text: &str, id: &str) -> Proposal {
    proposal(text).revising(Some(id)).unwrap()
}

fn refused<T>(result: Result<T>) -> (&'static str, String) {
    let Err(error) = result else { panic!("taken") };
    (error.class(), error.to_string())
}

#[test]
fn the_older_one_is_withdrawn_and_what_was_said_about_it_is_shown() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let first = queue.write_proposal(&proposal("a\nb\n")).unwrap();
    let question =
        Question { proposal_id: &first.id, text: "without b?", asked_by: None, surface: Surface::Cli, id: None };
    inbox.ask(&question).unwrap();
    let second = queue.write_proposal(&revising("a\n", &first.id)).unwrap();
    let waited = queue.wait_for_response(&first.id, Some(Duration::from_secs(60)), || false).unwrap_err();
    assert!(matches!(&waited, Error::Withdrawn { reason, .. } if *reason == format!("revised as {}", second.id)));
    let pending = inbox.pending(None).unwrap();
    assert_eq!((pending.len(), &pending[0].proposal.id, pending[0].revision), (1, &second.id, 2));
    let revised = inbox.review(&second.id).unwrap().revised.unwrap();
    assert_eq!((&revised.id, revised.thread[0].text.as_str()), (&first.id, "without b?"));
    let removed: Vec<&str> =
        revised.hunks[0].parts.iter().filter(|part| part.kind == "removed").map(|part| part.text.as_str()).collect();
    assert_eq!(removed, ["b\n"]);
    let third = queue.write_proposal(&revising("c\n", &second.id)).unwrap();
    assert_eq!(inbox.read(&third.id).unwrap().revision, 3);
    // Sent again, after a lost answer say.
    assert_eq!(queue.write_proposal(&third).unwrap(), third);
    let kinds: Vec<String> = inbox.changes(0, 9).unwrap().into_iter().map(|change| change.kind.into()).collect();
    assert_eq!(kinds, ["proposed", "asked", "withdrawn", "proposed", "withdrawn", "proposed"]);
    assert_eq!(place.database().check().unwrap(), [""; 0]);
}

#[test]
fn what_is_not_there_to_revise_is_said() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let decided = queue.write_proposal(&proposal("decided")).unwrap();
    decide(&inbox, &decided, Status::Approved).unwrap();
    let withdrawn = queue.write_proposal(&proposal("withdrawn")).unwrap();
    queue.withdraw_proposal(&withdrawn.id, "no need").unwrap();
    let foreign = place.queue("other").write_proposal(&proposal_of("other", "theirs")).unwrap();
    let other_tool = Proposal::new("dev", "capability-block", b"FROM x", "", None, None, None).unwrap();
    queue.write_proposal(&other_tool).unwrap();
    let same = queue.write_proposal(&proposal("new")).unwrap();
    for (id, class) in [
        (decided.id.as_str(), "AlreadyDecidedError"),
        (&withdrawn.id, "ProposalWithdrawnError"),
        (&foreign.id, "NotFoundError"),
        (&new_id(), "NotFoundError"),
        (&other_tool.id, "InvalidProposalError"),
        (&same.id, "InvalidProposalError"),
    ] {
        assert_eq!(refused(queue.write_proposal(&revising("new", id))).0, class);
    }
    assert_eq!(refused(proposal("x").revising(Some("first"))).0, "InvalidProposalError");
    let pending: Vec<String> =
        queue.list_pending_proposals().unwrap().into_iter().map(|asked| asked.id.clone()).collect();
    assert_eq!(pending, [other_tool.id.clone(), same.id.clone()]);
}

#[test]
fn one_that_others_ask_for_too_stays_theirs() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let first = queue.write_proposal(&proposal("x")).unwrap();
    let twin = proposal("x");
    queue.write_proposal(&twin).unwrap();
    let second = queue.write_proposal(&revising("y", &twin.id)).unwrap();
    let pending: Vec<String> =
        queue.list_pending_proposals().unwrap().into_iter().map(|asked| asked.id.clone()).collect();
    assert_eq!(pending, [first.id.clone(), second.id.clone()]);
    assert_eq!(queue.wait_for_response(&twin.id, None, || false).unwrap_err().class(), "ProposalWithdrawnError");
    decide(&inbox, &first, Status::Approved).unwrap();
    assert_eq!(queue.wait_for_response(&first.id, None, || false).unwrap().status, Status::Approved);
    assert_eq!(inbox.review(&second.id).unwrap().revised.unwrap().id, first.id);
}
