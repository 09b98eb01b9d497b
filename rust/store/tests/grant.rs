//! What does a grant allow, and how often?

use std::path::Path;
use std::time::Duration;

use bot_bottle_store::{Decision, GrantStore, Proposal, Status, Surface};

use crate::child::{Child, arg, hear, say};
use crate::place::{Place, decision};

/// In a child: spends what there is, and says how much it got.
pub fn spends(db: &Path) {
    let grants = GrantStore::new(Some(db)).unwrap();
    say("ready");
    hear();
    let mut spent = 0;
    while grants.use_grant("dev", "egress-token-allow", "token").unwrap().is_some() {
        spent += 1;
    }
    say(&spent.to_string());
}

fn granted(place: &Place, scope: &str) {
    let asked = Proposal::new("dev", "egress-token-allow", scope.as_bytes(), "", None, None, Some("token")).unwrap();
    place.queue("dev").write_proposal(&asked).unwrap();
    place.inbox().decide(&Decision { grant: Some(scope), ..decision(&asked, Status::Approved) }).unwrap();
}

fn uses(place: &Place) -> usize {
    let spend = || place.grants().use_grant("dev", "egress-token-allow", "token").unwrap();
    std::iter::from_fn(spend).take(10).count()
}

#[test]
fn each_scope_allows_what_it_says() {
    for (scope, expected) in
        [("once", 1), ("uses:3", 3), ("for:60", 10), ("until:2999-01-01T00:00:00Z", 10), ("bottle", 10)]
    {
        let place = Place::new();
        granted(&place, scope);
        for (slug, tool, fingerprint) in [
            ("box", "egress-token-allow", "token"),
            ("dev", "gitleaks-allow", "token"),
            ("dev", "egress-token-allow", "another"),
        ] {
            assert!(place.grants().use_grant(slug, tool, fingerprint).unwrap().is_none());
        }
        assert_eq!(uses(&place), expected, "{scope}");
        assert_eq!(place.count("audit_entries WHERE operator_action = 'grant-used' AND surface = 'policy'"), expected);
        assert_eq!(place.grants().list_grants(None, true).unwrap().len(), usize::from(expected == 10), "{scope}");
    }
}

#[test]
fn a_grant_ends_with_its_time_and_with_its_bottle() {
    let place = Place::new();
    place.bottles().register("dev", "docker", "mount", &[]).unwrap();
    granted(&place, "for:0.05");
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(uses(&place), 0);
    granted(&place, "bottle");
    assert_eq!(uses(&place), 10);
    place.bottles().stop("dev", "").unwrap();
    assert_eq!(uses(&place), 0);
    place.bottles().register("dev", "docker", "mount", &[]).unwrap();
    assert_eq!(uses(&place), 0, "a bottle of the same name is another one");
}

#[test]
fn uncounted_grants_are_used_before_counted_ones() {
    let place = Place::new();
    granted(&place, "once");
    granted(&place, "for:60");
    assert_eq!(uses(&place), 10);
    assert_eq!(place.grants().list_grants(None, true).unwrap().len(), 2);
}

#[test]
fn processes_never_spend_the_same_use() {
    let place = Place::new();
    granted(&place, "uses:100");
    let mut spenders: Vec<Child> = (0..4).map(|_| Child::start("spends", &[arg(&place.db)])).collect();
    spenders.iter_mut().for_each(|spender| assert_eq!(spender.says(), "ready"));
    spenders.iter_mut().for_each(|spender| spender.tell("go"));
    let spent: usize = spenders.iter_mut().map(|spender| spender.says().parse::<usize>().unwrap()).sum();
    assert_eq!(spent, 100);
    assert_eq!(place.shell("SELECT uses_left FROM grants"), "0");
    assert_eq!(place.audit().verify(None).unwrap().entries, 102);
}

#[test]
fn a_revoked_grant_is_over_and_revoking_it_again_says_nothing_new() {
    let place = Place::new();
    granted(&place, "uses:5");
    let grants = place.grants();
    let id = grants.list_grants(Some("dev"), true).unwrap().remove(0).id;
    let revoked = grants.revoke_grant(&id[..13], Some("bob"), Surface::Cli).unwrap();
    assert_eq!((revoked.live, revoked.revoked_by.as_deref()), (false, Some("bob")));
    let again = grants.revoke_grant(&id, Some("carol"), Surface::Cli).unwrap();
    assert_eq!(again, revoked);
    assert_eq!(uses(&place), 0);
    assert_eq!(place.shell("SELECT decided_by FROM audit_entries WHERE operator_action = 'grant-revoked'"), "bob");
    for unknown in ["", "012", "ffffffff"] {
        assert_eq!(grants.revoke_grant(unknown, None, Surface::Cli).unwrap_err().class(), "NotFoundError");
    }
}
