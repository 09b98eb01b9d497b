//! What must be seen of a proposal before it is decided.

use bot_bottle_store as store;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::Read;
use super::queue::{InboxItem, Message};
use crate::convert::dict;

value!(
/// Lines in a row that both texts have, or only one of them.
Part, store::Part {
    /// ``same``, ``removed`` or ``added``.
    kind: &str,
    /// The lines with their ends; only a text's last line may have none.
    text: &str,
} {
    /// What differs within lines that were replaced: slices of ``text``, in code points.
    #[getter]
    fn changed(&self) -> Vec<(usize, usize)> {
        self.0.changed.clone()
    }

    fn __repr__(&self) -> String {
        format!("Part(kind={:?}, text={} bytes)", self.0.kind, self.0.text.len())
    }
});

value!(
/// A place where two texts differ, with three lines around it. Lines count from 1; an empty side begins at 0.
Hunk, store::Hunk {
    /// Its first line in the text before.
    before_line: usize,
    /// How many lines of the text before it covers.
    before_lines: usize,
    /// Its first line in the text after.
    after_line: usize,
    /// How many lines of the text after it covers.
    after_lines: usize,
} {
    /// Its lines, in order.
    #[getter]
    fn parts(&self) -> Vec<Part> {
        self.0.parts.iter().cloned().map(Part).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Hunk(-{},{} +{},{})", it.before_line, it.before_lines, it.after_line, it.after_lines)
    }
});

value!(
/// The revision before a proposal, as far as an operator needs it to see what became of it.
Revised, store::Revised {
    /// The id of the proposal.
    id: &str,
} {
    /// What was said about it, in order.
    #[getter]
    fn thread(&self) -> Vec<Message> {
        self.0.thread.iter().cloned().map(Message).collect()
    }

    /// From what was proposed then to what is proposed now.
    #[getter]
    fn hunks(&self) -> Vec<Hunk> {
        self.0.hunks.iter().cloned().map(Hunk).collect()
    }

    fn __repr__(&self) -> String {
        format!("Revised(id={:?}, hunks={})", self.0.id, self.0.hunks.len())
    }
});

value!(
/// Something about a proposal that should make the operator look twice.
Odd, store::Odd {
    /// ``damaged``, ``stale``, ``not-compared``, ``invisible``, ``look-alike`` or ``right-to-left``.
    kind: &str,
    /// A sentence about it.
    message: &str,
} {
    fn __repr__(&self) -> String {
        format!("Odd(kind={:?})", self.0.kind)
    }
});

value!(
/// All that must be seen of one proposal before it is decided, from :meth:`Inbox.review`.
///
/// ``to_dict`` has its fields beside the item's; ``hunks``, ``revised`` and ``odd`` are nested.
Review, store::Review {
    /// The managed file as it is now; ``None`` without one, while it is absent, or if it cannot be shown.
    current_file: Option<&str>,
    /// Its hash; ``""`` while it is absent, ``None`` without one or if it cannot be read.
    current_sha256: Option<&str>,
    /// Why the file cannot be shown or compared.
    current_problem: Option<&str>,
    /// The hash that a decision names; ``docs/states.md`` says what it covers.
    review_sha256: &str,
} {
    /// The proposal and where it stands.
    #[getter]
    fn item(&self) -> InboxItem {
        InboxItem(self.0.item.clone())
    }

    /// Pending: from the file as it is to what is proposed. Modified: from what was proposed to what runs.
    ///
    /// ``None`` if there is nothing to compare: then the payload is what must be seen.
    #[getter]
    fn hunks(&self) -> Option<Vec<Hunk>> {
        self.0.hunks.clone().map(|hunks| hunks.into_iter().map(Hunk).collect())
    }

    /// The revision before this one, where :attr:`Proposal.revises` names one that is still kept.
    #[getter]
    fn revised(&self) -> Option<Revised> {
        self.0.revised.clone().map(Revised)
    }

    /// What should make the operator look twice.
    #[getter]
    fn odd(&self) -> Vec<Odd> {
        self.0.odd.iter().cloned().map(Odd).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Review(id={:?}, state={:?}, review_sha256={}…)", it.item.proposal.id, it.item.state, &it.review_sha256[..12])
    }
});
