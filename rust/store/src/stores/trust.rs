//! Does an answer or a grant count for a sidecar? As its launch says: signed by a trusted key, or as the file says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::grant::Grant;
use crate::queue::item::{InboxSummary, Item};
use crate::queue::message::Message;
use crate::queue::proposal::Proposal;
use crate::queue::response::Answered;
use crate::state::State;
use crate::statement::{Keyring, keyring_at};

/// So many questions of a process are remembered; it waits for far fewer at a time.
const MOST_ASKED: usize = 4096;

/// Which keys a store's answers must be signed by, and what this process asked.
#[derive(Default)]
pub(crate) struct Trust {
    keyring: Option<PathBuf>,
    /// By id: whoever can write to the file can put another question in the place of this one.
    asked: Mutex<HashMap<String, Asked>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Asked {
    bottle_slug: String,
    tool: String,
    payload_sha256: String,
}

impl Trust {
    /// From now on only what a key in this file signed is taken.
    pub(crate) fn keys(keyring: &Path) -> Arc<Self> {
        Arc::new(Trust { keyring: Some(keyring.to_owned()), ..Trust::default() })
    }

    /// Remembers what was asked, under its own id and that of the proposal which stands for it.
    pub(crate) fn remember(&self, asked: &Proposal, stands_for_it: &Proposal) {
        if self.keyring.is_none() {
            return;
        }
        let mut all = self.asked.lock();
        if all.len() >= MOST_ASKED {
            all.clear();
        }
        let what = Asked {
            bottle_slug: asked.bottle_slug.clone(),
            tool: asked.tool.clone(),
            payload_sha256: asked.payload_sha256.clone(),
        };
        all.insert(stands_for_it.id.clone(), what.clone());
        all.insert(asked.id.clone(), what);
    }

    fn keyring(&self, what: &str) -> Result<Option<Arc<Keyring>>> {
        let Some(path) = &self.keyring else { return Ok(None) };
        let unusable = |reason: String| Error::Unverified { what: what.to_owned(), reason };
        match keyring_at(path) {
            Ok(Some(keyring)) => Ok(Some(keyring)),
            Ok(None) => Err(unusable(format!("the keys that it is checked with, {}, are missing", path.display()))),
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    /// The answer to `id`, if it is one: signed, for this question, of this bottle.
    pub(crate) fn answer<R: Answered>(&self, queue_key: &str, id: &str, response: R) -> Result<R> {
        let what = || format!("the decision on proposal {id}");
        let Some(keyring) = self.keyring(&what())? else { return Ok(response) };
        response.verify(&keyring)?;
        let found = response.signed.as_ref().map(|signed| Asked {
            bottle_slug: signed.bottle_slug.clone(),
            tool: signed.tool.clone(),
            payload_sha256: response.payload_sha256.clone().unwrap_or_default(),
        });
        self.check_subject(queue_key, id, what(), &response.proposal_id, found)?;
        Ok(response)
    }

    /// What is said of `about` is said of what was asked as `id`.
    fn check_subject(&self, queue_key: &str, id: &str, what: String, about: &str, found: Option<Asked>) -> Result<()> {
        let refused = |reason: String| Err(Error::Unverified { what, reason });
        let asked = self.asked.lock().get(id).cloned();
        match (asked, found) {
            (Some(asked), Some(found)) if asked != found => {
                refused("it is about something else than what was asked".to_owned())
            }
            (Some(_), _) => Ok(()),
            (None, Some(found)) if found.bottle_slug != queue_key => {
                refused(format!("it was made for bottle {}, not for {queue_key}", found.bottle_slug))
            }
            // Of a coalesced question this process knows nothing, and the file could say anything.
            (None, _) if about != id => refused(format!("it is that of proposal {about}; ask with that id")),
            (None, _) => Ok(()),
        }
    }

    /// The question about `id`, if it is one: signed, about what was asked, of this bottle.
    pub(crate) fn question(&self, queue_key: &str, id: &str, message: Message) -> Result<Message> {
        let Some(keyring) = self.keyring(&message.subject())? else { return Ok(message) };
        message.verify(&keyring)?;
        let found = message.signed.as_ref().map(|signed| Asked {
            bottle_slug: signed.bottle_slug.clone(),
            tool: signed.tool.clone(),
            payload_sha256: signed.payload_sha256.clone(),
        });
        self.check_subject(queue_key, id, message.subject(), &message.proposal_id, found)?;
        Ok(message)
    }

    /// What is said about proposal `id`; a question that does not verify says so.
    fn thread(&self, queue_key: &str, id: &str, thread: &mut [Message]) -> Result<()> {
        for message in thread.iter_mut().filter(|message| message.is_question()) {
            if let Err(error) = self.question(queue_key, id, message.clone()) {
                message.damaged = Some(error.damage().ok_or(error)?);
            }
        }
        Ok(())
    }

    /// The item, if its state is one that a person signed or nobody needs to sign.
    pub(crate) fn item<P, R: Answered>(&self, id: &str, mut item: Item<P, R>) -> Result<Item<P, R>> {
        if self.keyring.is_none() {
            return Ok(item);
        }
        let queue_key = item.queue_key.clone();
        self.thread(&queue_key, id, &mut item.thread)?;
        let decided = item.state.known().is_some_and(State::is_decided);
        item.response = match item.response.take() {
            Some(response) => {
                let response = self.answer(&item.queue_key, id, response)?;
                let same = !decided || response.status.as_str() == item.state.as_str();
                if !same {
                    return Err(unsigned(id));
                }
                Some(response)
            }
            None if decided => return Err(unsigned(id)),
            None => None,
        };
        Ok(item)
    }

    /// For a list: what does not verify says so, and has no answer.
    pub(crate) fn listed(&self, item: InboxSummary) -> Result<InboxSummary> {
        let id = item.proposal.id.clone();
        let bare = InboxSummary { response: None, ..item.clone() };
        self.item(&id, item).or_else(|error| match error.damage() {
            Some(reason) => Ok(InboxSummary { damaged: Some(reason), ..bare }),
            None => Err(error),
        })
    }

    /// The grant, if a trusted key gave just this.
    pub(crate) fn grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str, grant: &Grant) -> Result<()> {
        let what = format!("grant {}", grant.id);
        let Some(keyring) = self.keyring(&what)? else { return Ok(()) };
        grant.verify(&keyring)?;
        if (grant.bottle_slug.as_str(), grant.tool.as_str(), grant.fingerprint.as_str())
            == (bottle_slug, tool, fingerprint)
        {
            return Ok(());
        }
        Err(Error::Unverified { what, reason: "it is for something else than what was asked".to_owned() })
    }
}

fn unsigned(id: &str) -> Error {
    Error::Unverified { what: format!("the decision on proposal {id}"), reason: "it is not signed".to_owned() }
}
