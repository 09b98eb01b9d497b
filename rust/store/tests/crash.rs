//! Is the world sane if a process dies on any line?

use std::fs;
use std::path::Path;
use std::time::Duration;

use bot_bottle_store::{ApplyState, Inbox, Status, Stored};

use crate::child::{Child, arg, say};
use crate::place::{Place, decide, proposal};

/// In a child: decides whatever is pending, for ever.
pub fn decides_all(db: &Path) {
    let inbox = Inbox::new(Some(db)).unwrap();
    loop {
        for (n, item) in inbox.pending(None).unwrap().iter().enumerate() {
            say(&format!("deciding {}", item.proposal.id));
            decide(&inbox, &item.proposal, if n % 2 == 0 { Status::Approved } else { Status::Rejected }).unwrap();
            say(&format!("decided {}", item.proposal.id));
        }
    }
}

/// What has to hold in the file at every moment, asked by the shell.
fn assert_sound(place: &Place) {
    let broken = place.shell(
        "SELECT 'integrity: ' || integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok';
         SELECT 'decided without a response: ' || id FROM proposals
           WHERE state IN ('approved', 'modified', 'rejected') AND seq NOT IN (SELECT proposal_seq FROM responses);
         SELECT 'response without a decision: ' || proposal_seq FROM responses r
           WHERE status <> (SELECT state FROM proposals WHERE seq = r.proposal_seq);
         SELECT 'not audited once: ' || id FROM proposals p WHERE state IN ('approved', 'modified', 'rejected')
           AND 1 <> (SELECT count(*) FROM audit_entries a WHERE a.proposal_id = p.id AND a.operator_action = p.state);
         SELECT 'audited, not decided: ' || proposal_id FROM audit_entries a
           WHERE operator_action NOT IN (SELECT state FROM proposals p WHERE p.id = a.proposal_id);
         SELECT 'no change noted: ' || id FROM proposals p WHERE state <> 'pending'
           AND 1 <> (SELECT count(*) FROM changes c WHERE c.proposal_id = p.id AND c.kind = p.state);",
    );
    assert_eq!(broken, "");
    place.audit().verify(None).unwrap();
}

#[test]
fn a_decider_killed_at_any_moment_has_decided_or_not() {
    let place = Place::new();
    let file = place.managed("start\n");
    let queue = place.queue("dev");
    let (mut cut_short, mut round, mut delay) = (0, 0, 0);
    // Every moment from the start on, and then until one was between the decision and its effect.
    while round < 40 || cut_short == 0 {
        assert!(round < 400, "no decider was killed between decision and effect");
        round += 1;
        let before = fs::read_to_string(&file).unwrap();
        let after = format!("{round}\n");
        let asked = queue.write_proposal(&proposal(&after)).unwrap();
        let mut decider = Child::start("decides all", &[arg(&place.db)]);
        assert_eq!(decider.says(), format!("deciding {}", asked.id));
        std::thread::sleep(Duration::from_micros(delay));
        let said = decider.kill();

        let state = place.shell(&format!(
            "SELECT p.state, m.state FROM proposals p LEFT JOIN applies m ON m.proposal_seq = p.seq WHERE p.id = '{}'",
            asked.id
        ));
        let content = fs::read_to_string(&file).unwrap();
        match state.as_str() {
            "pending|" => assert_eq!(content, before, "round {round}"),
            "approved|intended" => assert!(content == before || content == after, "round {round}: {content}"),
            "approved|applied" => assert_eq!(content, after, "round {round}"),
            other => panic!("round {round}: {other}"),
        }
        // Who was told of it can rely on it, and nobody hears of what is not in effect.
        assert!(said.is_empty() || state == "approved|applied", "round {round}: {said:?}, {state}");
        assert_eq!(queue.read_response(&asked.id).unwrap().is_some(), state == "approved|applied");
        assert_sound(&place);
        cut_short += usize::from(state == "approved|intended");
        delay = match state.as_str() {
            "pending|" => delay + 300,
            "approved|applied" => delay / 2,
            _ => delay * 2 / 3,
        };

        // The next opening of the inbox finishes what was decided, and nothing else.
        let inbox = place.inbox();
        assert_eq!(fs::read_to_string(&file).unwrap(), if state == "pending|" { before } else { after });
        if state == "pending|" {
            decide(&inbox, &asked, Status::Approved).unwrap();
        }
        assert_eq!(inbox.read(&asked.id).unwrap().apply_state, Some(Stored::Known(ApplyState::Applied)));
        assert_eq!(queue.wait_for_response(&asked.id, None, || false).unwrap().status, Status::Approved);
        assert_eq!(crate::place::names(file.parent().unwrap()), ["routes.yaml"], "round {round}");
        assert_sound(&place);
    }
}

fn decided(said: &str) -> Option<String> {
    said.strip_prefix("decided ").map(str::to_owned)
}

#[test]
fn a_killed_decider_leaves_plain_proposals_decided_once_or_pending() {
    let place = Place::new();
    let queue = place.queue("dev");
    let mut told = Vec::new();
    for round in 0..10 {
        // What the last one left, and some more.
        for n in queue.list_pending_proposals().unwrap().len()..20 {
            queue.write_proposal(&proposal(&format!("{round} {n}"))).unwrap();
        }
        let mut decider = Child::start("decides all", &[arg(&place.db)]);
        for _ in 0..=round * 2 {
            told.extend(decided(&decider.says()));
        }
        std::thread::sleep(Duration::from_micros(round * 400));
        told.extend(decider.kill().iter().filter_map(|said| decided(said)));
        assert_sound(&place);
    }
    assert!(told.len() >= 40, "{}", told.len());
    let decided = place.shell("SELECT proposal_id FROM audit_entries");
    assert!(told.iter().all(|id| decided.contains(id.as_str())));
}

#[test]
fn what_a_killed_proposer_was_told_is_written_is_there() {
    let place = Place::new();
    let mut told = Vec::new();
    for round in 0..10 {
        let mut proposer = Child::start("proposes", &[arg(&place.db), "dev"]);
        assert_eq!(proposer.says(), "ready");
        proposer.tell("100000");
        told.push(proposer.says());
        std::thread::sleep(Duration::from_micros(round * 2900));
        told.extend(proposer.kill());
        assert_sound(&place);
    }
    let there = place.shell("SELECT id FROM proposals UNION SELECT id FROM aliases");
    let missing = told.iter().filter(|id| !there.contains(id.as_str())).count();
    assert_eq!(missing, 0, "of {}", told.len());
}

#[test]
fn a_database_whose_maker_was_killed_is_made_by_the_next() {
    for round in 0..20 {
        let place = Place::new();
        let mut maker = Child::start("makes", &[arg(&place.db)]);
        assert_eq!(maker.says(), "making");
        std::thread::sleep(Duration::from_micros(round * 400));
        maker.kill();
        place.queue("dev").write_proposal(&proposal("x")).unwrap();
        assert_eq!(place.shell("PRAGMA integrity_check; SELECT count(*) FROM proposals"), "ok\n1", "round {round}");
    }
}

/// A decision on `routes.yaml` from `from` to `to` that is committed and not in effect, as a crash leaves it.
fn crashed(place: &Place, from: &str, to: &str) -> (std::path::PathBuf, String) {
    let file = place.managed(from);
    let asked = place.queue("dev").write_proposal(&proposal(to)).unwrap();
    decide(&place.inbox(), &asked, Status::Approved).unwrap();
    // Back to the moment before the rename.
    place.shell(&format!(
        "UPDATE applies SET state = 'intended'
         WHERE proposal_seq = (SELECT seq FROM proposals WHERE id = '{}')",
        asked.id
    ));
    fs::write(&file, from).unwrap();
    fs::write(file.with_file_name(format!(".routes.yaml.{}", asked.id)), to).unwrap();
    (file, asked.head.id)
}

fn apply_state(place: &Place) -> String {
    place.shell("SELECT state FROM applies")
}

#[test]
fn an_intended_file_comes_into_effect_with_the_next_inbox() {
    let place = Place::new();
    let (file, id) = crashed(&place, "old\n", "new\n");
    let queue = place.queue("dev");
    assert!(queue.read_response(&id).unwrap().is_none());
    let (done, end) = std::sync::mpsc::channel();
    let _wait = queue.begin_wait(&id, None, move |result| done.send(result.map(drop)).unwrap()).unwrap();
    assert!(end.recv_timeout(Duration::from_millis(50)).is_err(), "told of what is not in effect");
    let inbox = place.inbox();
    end.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), apply_state(&place).as_str()), ("new\n", "applied"));
    assert_eq!(inbox.recover().unwrap(), 0);
}

#[test]
fn an_intended_file_that_is_in_place_already_is_not_written_again() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let (file, id) = crashed(&place, "old\n", "new\n");
    fs::rename(file.with_file_name(format!(".routes.yaml.{id}")), &file).unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    place.inbox();
    assert_eq!((fs::metadata(&file).unwrap().ino(), apply_state(&place).as_str()), (inode, "applied"));
}

#[test]
fn a_file_changed_since_the_crash_is_left_alone() {
    let place = Place::new();
    let (file, id) = crashed(&place, "old\n", "new\n");
    fs::write(&file, "somebody else's\n").unwrap();
    let inbox = place.inbox();
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody else's\n");
    assert_eq!(apply_state(&place), "failed");
    let failed = inbox.failed().unwrap();
    assert_eq!(failed[0].proposal.id, id);
    assert!(failed[0].apply_error.as_deref().unwrap().contains("changed"));
    let error = place.queue("dev").wait_for_response(&id, None, || false).unwrap_err();
    assert_eq!(error.class(), "StaleReviewError");
    assert_eq!(inbox.recover().unwrap(), 0);
}

/// A sidecar can write to the database: an intent it made up becomes nothing, as no operator's process staged it.
#[test]
fn an_intent_that_nobody_staged_writes_nothing() {
    let place = Place::new();
    let (file, id) = crashed(&place, "old\n", "new\n");
    let staged = file.with_file_name(format!(".routes.yaml.{id}"));
    fs::write(&staged, "not what was decided\n").unwrap();
    place.inbox();
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), apply_state(&place).as_str()), ("old\n", "failed"));

    let place = Place::new();
    let victim = place.dir.join("authorized_keys");
    let (file, _) = crashed(&place, "old\n", "new\n");
    place.shell(&format!("UPDATE applies SET path = '{}', expected_sha256 = ''", victim.display()));
    place.inbox();
    assert_eq!((victim.exists(), apply_state(&place).as_str()), (false, "failed"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old\n");
}

#[test]
fn an_id_that_leads_out_of_the_directory_is_not_followed() {
    let place = Place::new();
    let (file, id) = crashed(&place, "old\n", "new\n");
    // The name of what is staged would be `.routes.yaml.d/../../victim`.
    fs::create_dir(file.with_file_name(".routes.yaml.d")).unwrap();
    fs::write(place.dir.join("victim"), "new\n").unwrap();
    place.shell(&format!(
        "DROP TRIGGER proposals_content_is_immutable; UPDATE proposals SET id = 'd/../../victim' WHERE id = '{id}'"
    ));
    place.inbox();
    assert_eq!(fs::read_to_string(&file).unwrap(), "old\n");
    assert!(place.dir.join("victim").exists());
}

#[test]
fn a_decision_under_way_is_left_to_its_process() {
    let place = Place::new();
    let (file, _) = crashed(&place, "old\n", "new\n");
    let lock = fs::File::create(place.dir.join("bot-bottle.db-apply")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let inbox = place.inbox();
    assert_eq!(inbox.recover().unwrap(), 0);
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), apply_state(&place).as_str()), ("old\n", "intended"));
    drop(lock);
    assert_eq!(inbox.recover().unwrap(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
}

#[test]
fn what_was_decided_first_is_in_effect_first() {
    let place = Place::new();
    let inbox = place.inbox(); // open before the crash
    let (file, _) = crashed(&place, "old\n", "new\n");
    let queue = place.queue("dev");
    let later = queue.write_proposal(&proposal("later\n")).unwrap(); // against the old file
    let error = decide(&inbox, &later, Status::Approved).unwrap_err();
    assert_eq!(error.class(), "StaleReviewError", "{error}");
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), apply_state(&place).as_str()), ("new\n", "applied"));
}
