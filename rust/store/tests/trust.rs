//! What does a sidecar that was given the operator's keys take for an answer?

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bot_bottle_store::{
    Decision, Error, GrantStore, Keys, Proposal, QueueStore, Response, Result, Reviewed, State, Status, Vocabulary,
};

use crate::place::{Place, decide, decision, expiring, proposal};

fn keyring(place: &Place) -> PathBuf {
    Keys::new(Some(&place.db)).unwrap().keyring_file()
}

/// As a sidecar opens it that was launched with the keys.
fn trusting(place: &Place, key: &str) -> QueueStore {
    place.queue(key).trusting(Some(&keyring(place)))
}

fn refusal<T>(result: Result<T>) -> String {
    let Err(error) = result else { panic!("taken") };
    assert_eq!((error.class(), error.exit_code()), ("AuditIntegrityError", 7), "{error}");
    error.to_string()
}

/// By every way there is to an answer.
fn refused_everywhere(queue: &QueueStore, id: &str) -> String {
    let (done, end) = std::sync::mpsc::channel();
    let wait = queue.begin_wait(id, None, move |ended| done.send(ended.map(drop)).unwrap()).unwrap();
    refusal(end.recv_timeout(Duration::from_secs(20)).unwrap());
    drop(wait);
    refusal(queue.read_response(id));
    refusal(queue.inspect(id));
    let listed = queue.list_items(10).unwrap();
    let listed = listed.iter().find(|item| item.proposal.id == id);
    assert!(listed.is_none_or(|item| item.damaged.is_some() && item.response.is_none()), "{listed:?}");
    refusal(queue.wait_for_response(id, Some(Duration::from_secs(20)), || false))
}

fn noted(place: &Place) -> usize {
    place.count("audit_entries WHERE operator_action = 'damaged'")
}

#[test]
fn what_an_operator_decided_is_taken_and_carries_its_proof() {
    let place = Place::new();
    for status in Status::ALL {
        let queue = trusting(&place, "dev");
        let asked = queue.write_proposal(&proposal(status.as_str())).unwrap();
        let final_file = (*status == Status::Modified).then_some("other\n");
        let decided = place.inbox().decide(&Decision { final_file, ..decision(&asked, *status) }).unwrap();
        let answer = queue.wait_for_response(&asked.id, None, || false).unwrap();
        assert_eq!(answer.answer(), decided.answer());
        assert_eq!(answer.signed.as_ref().unwrap().bottle_slug, "dev");
        // By another process too, which did not ask.
        assert!(trusting(&place, "dev").read_response(&asked.id).unwrap().is_some());
    }
    assert_eq!(noted(&place), 0);
}

const FORGED: &str = "UPDATE proposals SET state = 'approved' WHERE state = 'pending';
    INSERT INTO responses (proposal_seq, status, notes, payload_sha256, final_sha256, decided_by, surface, decided_at,
            review_sha256, key_id, signature)
        SELECT seq, 'approved', '', payload_sha256, payload_sha256, 'operator', 'cli', arrival_timestamp, '', '', ''
        FROM proposals p WHERE NOT EXISTS (SELECT 1 FROM responses WHERE proposal_seq = p.seq)";

#[test]
fn a_decision_that_nobody_signed_opens_no_gate() {
    let place = Place::new();
    place.bottles().register("dev", "docker", "mount", &[]).unwrap(); // makes the keys
    let queue = trusting(&place, "dev");
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    place.shell(FORGED);
    assert!(refused_everywhere(&queue, &asked.id).contains("not signed"));
    assert_eq!(noted(&place), 1);
    // The operator sees it for what it is.
    let seen = place.inbox().read(&asked.id).unwrap();
    assert!(seen.damaged.unwrap().contains("not signed"));
    // A state alone is no decision either.
    let other = queue.write_proposal(&proposal("y")).unwrap();
    place.shell("UPDATE proposals SET state = 'approved' WHERE state = 'pending'");
    assert!(refusal(queue.inspect(&other.id)).contains("not signed"));
    assert!(place.inbox().read(&other.id).unwrap().damaged.is_some());
    // Without keys, as the page says, the file is believed.
    assert!(place.queue("dev").read_response(&asked.id).unwrap().is_some());
}

#[test]
fn no_part_of_a_signed_decision_can_be_changed() {
    let changes = [
        "status = 'rejected', final_sha256 = NULL, final_file = NULL",
        "status = 'approved', final_file = NULL, final_sha256 = payload_sha256",
        "notes = 'go ahead'",
        "final_file = 'other'",
        "final_file = 'other', final_sha256 = 'd9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa'",
        "payload_sha256 = final_sha256",
        "decided_by = 'bob'",
        "surface = 'tui'",
        "decided_at = '2026-01-01T00:00:00.000000Z'",
        "review_sha256 = ''",
        "scope = 'bottle'",
        "key_id = ''",
        "signature = ''",
        "signature = 'x'",
    ];
    for change in changes {
        let place = Place::new();
        let queue = trusting(&place, "dev");
        let asked = queue.write_proposal(&proposal("x")).unwrap();
        let modified = Decision { final_file: Some("mine"), ..decision(&asked, Status::Modified) };
        place.inbox().decide(&modified).unwrap();
        place.shell(&format!("DROP TRIGGER responses_are_final; UPDATE responses SET {change}"));
        place.shell("UPDATE proposals SET archived_at = archived_at");
        refusal(queue.wait_for_response(&asked.id, Some(Duration::from_secs(20)), || false));
        assert!(place.inbox().read(&asked.id).unwrap().damaged.is_some(), "{change}");
        assert_eq!(noted(&place), 1, "{change}");
    }
}

#[test]
fn a_decision_answers_its_own_question_alone() {
    let place = Place::new();
    let (queue, evil) = (trusting(&place, "dev"), place.queue("evil"));
    let harmless = Proposal::new("evil", "egress-allow", b"harmless", "", None, None, None).unwrap();
    let harmless = evil.write_proposal(&harmless).unwrap();
    decide(&place.inbox(), &harmless, Status::Approved).unwrap();
    let earlier = queue.write_proposal(&proposal("harmless too")).unwrap();
    decide(&place.inbox(), &earlier, Status::Approved).unwrap();
    let asked = queue.write_proposal(&proposal("rm -rf")).unwrap();
    // Another's signed answer under this question.
    for from in [&harmless, &earlier] {
        place.shell(&format!(
            "UPDATE proposals SET state = 'approved' WHERE id = '{id}' AND state = 'pending';
             REPLACE INTO responses SELECT (SELECT seq FROM proposals WHERE id = '{id}'), status, notes, payload_sha256,
                 final_sha256, decided_by, surface, decided_at, review_sha256, scope, key_id, signature, final_file
             FROM responses WHERE proposal_seq = (SELECT seq FROM proposals WHERE id = '{}')",
            from.id,
            id = asked.id,
        ));
        assert!(refused_everywhere(&queue, &asked.id).contains("what key"));
    }
    // The question itself replaced by an alias of the one that was approved; not remembered by another process either.
    place.shell(&format!(
        "DELETE FROM responses WHERE proposal_seq = (SELECT seq FROM proposals WHERE id = '{id}');
         DELETE FROM proposals WHERE id = '{id}';
         INSERT INTO aliases (id, proposal_seq, justification, arrival_timestamp)
             SELECT '{id}', seq, '', arrival_timestamp FROM proposals WHERE id = '{}'",
        earlier.id,
        id = asked.id
    ));
    assert!(refusal(queue.read_response(&asked.id)).contains("something else than what was asked"));
    assert!(refusal(trusting(&place, "dev").read_response(&asked.id)).contains("ask with that id"));
}

#[test]
fn an_answer_to_other_content_than_was_asked_about_is_refused() {
    let place = Place::new();
    let queue = trusting(&place, "dev");
    let asked = queue.write_proposal(&proposal("dangerous")).unwrap();
    // What the operator is shown, and honestly decides.
    let harmless = proposal("harmless");
    place.shell(&format!(
        "DROP TRIGGER proposals_content_is_immutable;
         UPDATE proposals SET proposed_file = 'harmless', payload_sha256 = '{}'",
        harmless.payload_sha256
    ));
    place
        .inbox()
        .decide(&Decision {
            reviewed: Reviewed::Payload(&harmless.payload_sha256),
            ..decision(&asked, Status::Approved)
        })
        .unwrap();
    assert!(refusal(queue.wait_for_response(&asked.id, None, || false)).contains("something else"));
}

#[test]
fn who_asked_the_same_gets_the_same_answer() {
    let place = Place::new();
    let (first, second) = (trusting(&place, "dev"), trusting(&place, "dev"));
    let asked = first.write_proposal(&proposal("x")).unwrap();
    let again = proposal("x");
    assert_eq!(second.write_proposal(&again).unwrap().id, asked.id);
    decide(&place.inbox(), &asked, Status::Approved).unwrap();
    for id in [&again.id, &asked.id] {
        assert_eq!(second.wait_for_response(id, None, || false).unwrap().status, Status::Approved);
    }
}

#[test]
fn keys_that_are_missing_unreadable_or_not_trusted_keep_the_gate_shut() {
    let place = Place::new();
    let queue = trusting(&place, "dev");
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    decide(&place.inbox(), &asked, Status::Approved).unwrap();
    let good = fs::read(keyring(&place)).unwrap();
    assert!(queue.read_response(&asked.id).is_ok());
    for bad in [&b""[..], b"nonsense", b"bot-bottle/keyring/1\n"] {
        fs::write(keyring(&place), bad).unwrap();
        refusal(queue.read_response(&asked.id));
    }
    fs::remove_file(keyring(&place)).unwrap();
    assert!(refusal(queue.read_response(&asked.id)).contains("are missing"));
    rustix::fs::mknodat(rustix::fs::CWD, keyring(&place), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refusal(queue.read_response(&asked.id));
    fs::remove_file(keyring(&place)).unwrap();
    fs::write(keyring(&place), good).unwrap();
    assert!(queue.read_response(&asked.id).is_ok());
}

#[test]
fn what_a_rotated_key_signed_stands_and_a_revoked_one_signs_nothing_later() {
    let place = Place::new();
    let (queue, keys) = (trusting(&place, "dev"), Keys::new(Some(&place.db)).unwrap());
    let asked: Vec<_> = ["a", "b"].map(|text| queue.write_proposal(&proposal(text)).unwrap()).into();
    decide(&place.inbox(), &asked[0], Status::Approved).unwrap();
    let first = keys.keyring().unwrap().keys()[0].id.clone();
    keys.rotate().unwrap();
    decide(&place.inbox(), &asked[1], Status::Approved).unwrap();
    for asked in &asked {
        assert!(queue.read_response(&asked.id).is_ok());
    }
    keys.revoke(&first, Some("2026-01-01T00:00:00Z")).unwrap();
    assert!(refusal(queue.read_response(&asked[0].id)).contains("was revoked"));
    assert!(queue.read_response(&asked[1].id).is_ok());
}

fn granted(place: &Place, scope: &str) -> GrantStore {
    let queue = place.queue("dev");
    let text = format!("a push, {scope}");
    let asked = Proposal::new("dev", "gitleaks-allow", text.as_bytes(), "", None, None, Some("rule/path/1")).unwrap();
    let asked = queue.write_proposal(&asked).unwrap();
    place.inbox().decide(&Decision { grant: Some(scope), ..decision(&asked, Status::Approved) }).unwrap();
    place.grants().trusting(Some(&keyring(place)))
}

fn spend(grants: &GrantStore) -> Result<usize> {
    let mut spent = 0;
    while spent < 5 && grants.use_grant("dev", "gitleaks-allow", "rule/path/1")?.is_some() {
        spent += 1;
    }
    Ok(spent)
}

#[test]
fn a_grant_allows_what_was_signed_and_no_more() {
    let place = Place::new();
    let grants = granted(&place, "uses:2");
    assert_eq!(spend(&grants).unwrap(), 2);
    for change in [
        "uses_left = 3",
        "uses = 3, uses_left = 3",
        "scope = 'bottle', uses = NULL, uses_left = NULL",
        "scope = 'once', uses_left = 1",
        "created_by = 'bob', uses_left = 1",
        "proposal_id = NULL, uses_left = 1",
        "key_id = '', uses_left = 1",
    ] {
        let kept = place.shell("SELECT quote(uses) || ' ' || scope FROM grants");
        place.shell(&format!("CREATE TABLE kept AS SELECT * FROM grants; UPDATE grants SET {change}"));
        refusal(spend(&grants));
        let listed = place.grants().list_grants(None, false).unwrap();
        assert!(listed[0].damaged.is_some(), "{change}");
        place.shell("DELETE FROM grants; INSERT INTO grants SELECT * FROM kept; DROP TABLE kept");
        assert_eq!(place.shell("SELECT quote(uses) || ' ' || scope FROM grants"), kept);
    }
    // Its own row for another bottle, tool or secret.
    for (column, asked) in [
        ("bottle_slug", ["other", "gitleaks-allow", "rule/path/1"]),
        ("tool", ["dev", "other", "rule/path/1"]),
        ("fingerprint", ["dev", "gitleaks-allow", "other"]),
    ] {
        place.shell(&format!(
            "CREATE TABLE kept AS SELECT * FROM grants; UPDATE grants SET {column} = 'other', uses_left = 1"
        ));
        refusal(grants.use_grant(asked[0], asked[1], asked[2]));
        place.shell("DELETE FROM grants; INSERT INTO grants SELECT * FROM kept; DROP TABLE kept");
    }
}

#[test]
fn a_forged_grant_does_not_keep_a_signed_one_from_its_use() {
    let place = Place::new();
    let grants = granted(&place, "uses:2");
    place.shell(
        "INSERT INTO grants (id, bottle_slug, tool, fingerprint, scope, created_at, created_by, key_id, signature)
         VALUES ('0', 'dev', 'gitleaks-allow', 'rule/path/1', 'bottle', '2026-01-01T00:00:00.000000Z', 'ann', '', '')",
    );
    for left in [2, 1] {
        let found = grants.find_grant("dev", "gitleaks-allow", "rule/path/1").unwrap();
        assert_eq!(found.and_then(|grant| grant.uses_left), Some(left));
        assert!(grants.use_grant("dev", "gitleaks-allow", "rule/path/1").unwrap().is_some());
    }
    assert!(refusal(grants.find_grant("dev", "gitleaks-allow", "rule/path/1")).contains("not signed"));
    assert!(refusal(grants.use_grant("dev", "gitleaks-allow", "rule/path/1")).contains("not signed"));
    assert_eq!(noted(&place), 1);
}

#[test]
fn what_nobody_answered_ends_as_without_keys() {
    let place = Place::new();
    place.bottles().register("dev", "docker", "mount", &[]).unwrap();
    let queue = trusting(&place, "dev");
    let asked = queue.write_proposal(&expiring("x", Duration::from_millis(50))).unwrap();
    let error = queue.wait_for_response(&asked.id, None, || false).unwrap_err();
    assert_eq!(error.class(), "ProposalExpiredError");
    let asked = queue.write_proposal(&proposal("y")).unwrap();
    queue.withdraw_proposal(&asked.id, "").unwrap();
    assert!(matches!(queue.wait_for_response(&asked.id, None, || false), Err(Error::Withdrawn { .. })));
    assert_eq!(queue.inspect(&asked.id).unwrap().unwrap().state, State::Withdrawn);
    let none: Option<Response> = queue.read_response(&asked.id).unwrap();
    assert!(none.is_none());
}
