//! What may rows lead to that this host did not sign?

use bot_bottle_store::Status;
use std::fs;

use crate::place::{Place, decide, proposal};

fn damaged(place: &Place) -> Vec<String> {
    let text = place.shell("SELECT operator_notes FROM audit_entries WHERE operator_action = 'damaged' ORDER BY seq");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_path_that_somebody_else_wrote_is_neither_read_nor_written() {
    let place = Place::new();
    let file = place.managed("old\n");
    let secret = place.dir.join("id_ed25519");
    fs::write(&secret, "secret\n").unwrap();
    let asked = place.queue("dev").write_proposal(&proposal("new\n")).unwrap();
    place.shell(&format!("UPDATE managed_files SET path = '{}'", secret.display()));
    let inbox = place.inbox();
    let seen = inbox.read(&asked.id).unwrap();
    assert_eq!(seen.managed_file, None);
    assert!(seen.damaged.unwrap().contains("is not what key"));
    for status in [Status::Rejected, Status::Approved] {
        let error = decide(&inbox, &asked, status).unwrap_err();
        assert_eq!((error.class(), error.exit_code()), ("AuditIntegrityError", 7), "{error}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old\n");
    assert_eq!(place.count("responses"), 0);
    assert_eq!(place.count("audit_entries WHERE diff LIKE '%secret%'"), 0);
    assert_eq!(damaged(&place).len(), 1, "said twice: {:?}", damaged(&place));
    // What the host writes anew is taken.
    let file = place.managed("old\n");
    decide(&inbox, &asked, Status::Approved).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "new\n");
}

#[test]
fn a_row_added_beside_the_signed_ones_spoils_the_bottle_alone() {
    let place = Place::new();
    place.managed("old\n");
    place.bottles().register("other", "docker", "mount", &[]).unwrap();
    let victim = place.dir.join("victim");
    place.shell(&format!(
        "INSERT INTO managed_files (bottle_slug, tool, path, known_sha256) VALUES ('dev', 'x', '{}', '')",
        victim.display()
    ));
    let listed = place.bottles().list_bottles(true).unwrap();
    assert_eq!(listed.len(), 2);
    for bottle in listed {
        assert_eq!(bottle.damaged.is_some(), bottle.slug == "dev", "{bottle:?}");
        assert!(bottle.files.is_empty());
    }
    let findings = place.database().check().unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("registration of bottle dev"), "{findings:?}");
}

#[test]
fn an_intent_for_a_path_that_was_not_registered_is_not_carried_out() {
    let place = Place::new();
    place.managed("old\n");
    let victim = place.dir.join("files").join("bashrc");
    fs::write(&victim, "mine\n").unwrap();
    let asked = place.queue("dev").write_proposal(&proposal("theirs\n")).unwrap();
    // All that a crash between commit and rename leaves, for another file.
    let staged = place.dir.join("files").join(format!(".bashrc.{}", asked.id));
    fs::write(staged, "theirs\n").unwrap();
    let hash = |text: &str| bot_bottle_store::sha256_hex(text);
    place.shell(&format!(
        "INSERT INTO applies (proposal_seq, path, expected_sha256, final_sha256, state, updated_at)
         VALUES (1, '{}', '{}', '{}', 'intended', '2026-01-01T00:00:00.000000Z')",
        victim.display(),
        hash("mine\n"),
        hash("theirs\n")
    ));
    let inbox = place.inbox();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine\n");
    let failed = inbox.failed().unwrap();
    assert!(failed[0].apply_error.as_deref().unwrap().contains("nothing was written"), "{failed:?}");
}

#[test]
fn a_token_that_this_host_did_not_sign_opens_nothing() {
    let place = Place::new();
    let bottles = place.bottles();
    bottles.register("dev", "docker", "broker", &[]).unwrap();
    let token = bottles.issue_token("dev").unwrap();
    assert_eq!(bottles.check_token(&token).unwrap().as_deref(), Some("dev"));
    let forged = bot_bottle_store::sha256_hex("forged");
    place.shell(&format!("INSERT INTO bottle_tokens VALUES ('{forged}', 'dev', '2026-01-01T00:00:00.000000Z', NULL)"));
    assert_eq!(bottles.check_token("forged").unwrap(), None);
    assert_eq!(damaged(&place).len(), 1);
    // A bottle whose rows were touched has no way in until it is started again.
    assert_eq!(bottles.check_token(&token).unwrap(), None);
    assert_eq!(damaged(&place).len(), 1);
}

#[test]
fn a_stopped_bottle_s_rows_cannot_be_put_back() {
    let place = Place::new();
    let bottles = place.bottles();
    bottles.register("dev", "docker", "broker", &[]).unwrap();
    let token = bottles.issue_token("dev").unwrap();
    let copy = place.dir.join("copy");
    place.shell(&format!(
        "ATTACH '{}' AS copy; CREATE TABLE copy.bottles AS SELECT * FROM bottles;
         CREATE TABLE copy.bottle_tokens AS SELECT * FROM bottle_tokens",
        copy.display()
    ));
    bottles.stop("dev", "").unwrap();
    place.shell(&format!(
        "ATTACH '{}' AS copy; REPLACE INTO main.bottles SELECT * FROM copy.bottles;
         DELETE FROM bottle_tokens; INSERT INTO bottle_tokens SELECT * FROM copy.bottle_tokens",
        copy.display()
    ));
    assert_eq!(bottles.check_token(&token).unwrap(), None);
    let damaged = bottles.read_bottle("dev").unwrap().unwrap().damaged.unwrap();
    assert!(damaged.contains("older one that was put back"), "{damaged}");
}

#[test]
fn a_slug_that_is_a_path_is_damaged_and_goes_nowhere() {
    let place = Place::new();
    let bottles = place.bottles();
    bottles.register("dev", "docker", "mount", &[]).unwrap();
    let documents = place.dir.join("documents");
    fs::create_dir(&documents).unwrap();
    for slug in [documents.to_str().unwrap(), "../documents", "..", ".", ""] {
        place.shell(&format!(
            "INSERT INTO bottles SELECT '{slug}', backend, transport, generation, started_at, NULL, key_id, signature
             FROM bottles WHERE slug = 'dev'"
        ));
        assert_eq!(bottles.stop(slug, "").unwrap_err().exit_code(), 2, "{slug}");
        assert_eq!(bottles.register(slug, "docker", "mount", &[]).unwrap_err().exit_code(), 2, "{slug}");
        place.shell("DELETE FROM bottles WHERE slug <> 'dev'");
    }
    assert!(documents.is_dir());
    assert_eq!(place.database().check().unwrap(), Vec::<String>::new());
}

#[test]
fn another_host_s_registration_counts_for_nothing_here() {
    let (place, stranger) = (Place::new(), Place::new());
    for place in [&place, &stranger] {
        place.managed("old\n");
    }
    let keys = |place: &Place| bot_bottle_store::Keys::new(Some(&place.db)).unwrap();
    // Trusted for decisions even so.
    let public = place.dir.join("stranger.pub");
    let key = keys(&stranger).keyring().unwrap().keys()[0].clone();
    let mut ssh = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    ssh.extend(base64(&key.public_key));
    fs::write(&public, format!("ssh-ed25519 {}\n", encode(&ssh))).unwrap();
    keys(&place).trust("stranger", &public).unwrap();
    let [key_id, signature] = ["key_id", "signature"].map(|c| stranger.shell(&format!("SELECT {c} FROM bottles")));
    place.shell(&format!("UPDATE bottles SET key_id = '{key_id}', signature = '{signature}'"));
    let damaged = place.bottles().read_bottle("dev").unwrap().unwrap().damaged.unwrap();
    assert!(damaged.contains("only this host's own may sign it"), "{damaged}");
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
