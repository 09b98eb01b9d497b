//! Which findings were allowed before, and when is a use of that spent? Only by a push that goes through.

use bot_bottle_store::{Grant, Tool, Vocabulary};

use super::ask::State;
use super::{Outcome, Refusal, say};
use crate::place::Place;

/// More findings are not asked about.
const MOST_FINDINGS: usize = 200;

/// The grants of one bottle.
pub struct Grants<'a> {
    pub place: &'a Place,
    pub bottle: &'a str,
}

/// The findings of a push, as the grants have them.
pub struct Cover {
    /// Those that no grant covers.
    pub open: Vec<String>,
    /// The fingerprints of the grants that cover the others.
    pub granted: Vec<String>,
}

impl Grants<'_> {
    /// Spends nothing yet.
    pub fn cover(&self, state: &State, mut open: Vec<String>) -> Outcome<Cover> {
        let mut granted = Vec::new();
        for (name, members) in state.sets() {
            if open.iter().any(|fingerprint| members.contains(fingerprint)) && self.has(&name)? {
                open.retain(|fingerprint| !members.contains(fingerprint));
                granted.push(name);
            }
        }
        if open.len() > MOST_FINDINGS {
            return Err(Refusal::new(format!(
                "gitleaks found {} possible secrets, more than anybody would look through; push fewer commits at once",
                open.len()
            )));
        }
        let mut left = Vec::new();
        for fingerprint in open {
            if self.has(&fingerprint)? {
                granted.push(fingerprint);
            } else {
                left.push(fingerprint);
            }
        }
        Ok(Cover { open: left, granted })
    }

    /// Refuses the push unless all of `granted` can still be used: it may have been held for minutes.
    pub fn check(&self, granted: &[String]) -> Outcome<()> {
        for fingerprint in granted {
            if !self.has(fingerprint)? {
                return Err(gone());
            }
        }
        Ok(())
    }

    /// Spends a use of each of `granted`, or refuses the push.
    pub fn spend(&self, granted: &[String]) -> Outcome<()> {
        self.check(granted)?;
        for fingerprint in granted {
            self.spend_one(fingerprint).map_err(not_looked_up)?.ok_or_else(gone)?;
        }
        Ok(())
    }

    /// The same for a push that has gone through, whatever becomes of it.
    pub fn pay<'f>(&self, fingerprints: impl IntoIterator<Item = &'f String>) {
        for fingerprint in fingerprints {
            if let Err(error) = self.spend_one(fingerprint) {
                say(&format!("the grant for this push was not marked as used: {error}"));
            }
        }
    }

    fn spend_one(&self, fingerprint: &str) -> bot_bottle_store::Result<Option<Grant>> {
        self.place.grants()?.use_grant(self.bottle, Tool::GitleaksAllow.as_str(), fingerprint)
    }

    fn has(&self, fingerprint: &str) -> Outcome<bool> {
        let found =
            self.place.grants().and_then(|g| g.find_grant(self.bottle, Tool::GitleaksAllow.as_str(), fingerprint));
        found.map(|grant| grant.is_some()).map_err(not_looked_up)
    }
}

fn not_looked_up(error: bot_bottle_store::Error) -> Refusal {
    Refusal::new(format!("earlier approvals could not be looked up: {error}"))
}

fn gone() -> Refusal {
    Refusal::new("an earlier approval that this push needs has ended meanwhile; push again to ask again")
}
