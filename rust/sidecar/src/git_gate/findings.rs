//! What was found, told so that nothing of a secret is left, and with an identity that lasts?

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use bot_bottle_store::visible;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::contents::Contents;
use super::detector::Leak;
use super::git::text;
use super::known::Known;
use super::pieces::Subject;
use super::push::Push;
use super::{Outcome, Refusal};

/// A shorter key could be guessed, and with it the secrets behind the fingerprints.
const KEY_BYTES: usize = 32;
/// What a grant's fingerprint may measure.
const MAX_FINGERPRINT_BYTES: usize = 256;
/// Of a line, so many characters are shown.
const LINE_SHOWN: usize = 200;
/// Shorter lines of a secret that has several are not redacted one by one: they may be anything.
const SHORTEST_PART: usize = 8;

/// A secret that a rule saw in a path, however often it is there.
pub struct Finding {
    /// Rule, path and a keyed hash over both and the secret: the same after a rebase, another for another secret.
    pub fingerprint: String,
    pub rule: String,
    /// What the rule looks for, in gitleaks' words.
    pub description: String,
    /// The file, or `commit message` and the like.
    pub path: String,
    /// Of the first place; 0 where there is none.
    pub line: u64,
    /// The oldest commit of the push that has it (or the tag), empty where there is none.
    pub commit: String,
    pub in_commit: bool,
    /// Where else it is, oldest first: commit or tag, and line.
    pub elsewhere: Vec<(String, u64)>,
    /// The lines with the secret and around it, redacted, as number and text; 0 for no number. The ones with the secret
    /// are marked.
    pub lines: Vec<(bool, u64, String)>,
    /// Why it may be no secret: it is of a kind that is made for tests.
    pub test_kind: Option<&'static str>,
    /// What the repository has in its place already.
    pub there: &'static str,
}

/// Redacts every secret of a push in whatever is shown of it.
pub struct Redaction {
    secrets: Vec<String>,
}

impl Redaction {
    pub fn of(leaks: &[Leak]) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for leak in leaks {
            for secret in [&leak.secret, &leak.trace] {
                secrets.push(secret.clone());
                if secret.contains('\n') {
                    let parts = secret.lines().map(str::trim).filter(|part| part.len() >= SHORTEST_PART);
                    secrets.extend(parts.filter(|part| !part.starts_with("-----")).map(str::to_owned));
                }
            }
        }
        secrets.retain(|secret| !secret.is_empty());
        // A secret may be part of another: the longest goes first.
        secrets.sort_unstable_by(|a, b| (Reverse(a.len()), a).cmp(&(Reverse(b.len()), b)));
        secrets.dedup();
        Redaction { secrets }
    }

    /// On one line, with nothing that could deceive the eye.
    pub fn clean(&self, text: &str) -> String {
        let redacted = self.secrets.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), "REDACTED") } else { text }
        });
        visible(&redacted, false).into_owned()
    }

    fn line(&self, text: &str) -> String {
        let clean = self.clean(&text.replace('\t', "    "));
        let more = clean.chars().count().saturating_sub(LINE_SHOWN);
        if more == 0 {
            return clean;
        }
        // A line may be a whole file: what is shown is around the first secret.
        let at = clean.find("REDACTED").map_or(0, |at| clean[..at].chars().count().saturating_sub(LINE_SHOWN / 2));
        let shown: String = clean.chars().skip(at).take(LINE_SHOWN).collect();
        format!("{}{shown}… ({more} more characters)", if at > 0 { "…" } else { "" })
    }
}

/// A place of a finding: the age of the commit, line, and commit.
type Spot = (usize, u64, String);

/// All findings, each once, by path and line. `known` says what the upstream has.
pub fn findings(
    leaks: &[Leak],
    contents: &Contents,
    push: &Push,
    known: &Known,
    key: &[u8],
    redaction: &Redaction,
) -> Outcome<Vec<Finding>> {
    if key.len() < KEY_BYTES {
        let problem = format!("the key has {} bytes instead of {KEY_BYTES}; install the git gate again", key.len());
        return Err(Refusal::new(problem));
    }
    let order: HashMap<&str, usize> = contents.commits.iter().enumerate().map(|(nth, id)| (id.as_str(), nth)).collect();
    let mut found: BTreeMap<(String, String, String), (usize, Finding)> = BTreeMap::new();
    let mut everywhere: HashMap<_, HashMap<_, Spot>> = HashMap::new();
    for (nth, leak) in leaks.iter().enumerate() {
        for place in places(nth, leak, contents, push, known) {
            let rule = redaction.clean(&leak.rule);
            let path = redaction.clean(&place.path);
            let secret = if leak.secret.is_empty() { place.commit } else { leak.secret.as_str() };
            let fingerprint = fingerprint(&rule, &path, &keyed_hash(key, &leak.rule, &place.path, secret)?);
            let age = order.get(place.commit).copied().unwrap_or(usize::MAX);
            let identity = (path.clone(), rule.clone(), fingerprint.clone());
            // A place is a line of a content, in whichever versions: the oldest.
            let spot = (age, place.line, place.commit.to_owned());
            let spots = everywhere.entry(identity.clone()).or_default();
            let oldest = spots.entry((place.line, &leak.found)).or_insert_with(|| spot.clone());
            if spot < *oldest {
                *oldest = spot;
            }
            if found.get(&identity).is_some_and(|(first, finding)| (*first, finding.line) <= (age, place.line)) {
                continue;
            }
            let finding = Finding {
                fingerprint,
                description: redaction.clean(&leak.description),
                line: place.line,
                commit: place.commit.to_owned(),
                in_commit: place.in_commit,
                elsewhere: Vec::new(),
                lines: lines(leak, place.line, redaction),
                test_kind: test_kind(&leak.secret),
                there: place.there,
                rule,
                path,
            };
            found.insert(identity, (age, finding));
        }
    }
    let with_places = |(identity, (_, mut finding)): (_, (usize, Finding))| {
        let mut spots: Vec<_> = everywhere.remove(&identity).unwrap_or_default().into_values().collect();
        spots.sort_unstable();
        // The first is the finding's own.
        finding.elsewhere = spots.into_iter().skip(1).map(|(_, line, commit)| (commit, line)).collect();
        finding
    };
    let mut found: Vec<Finding> = found.into_iter().map(with_places).collect();
    found.sort_by(|a, b| (&a.path, a.line, &a.rule).cmp(&(&b.path, b.line, &b.rule)));
    Ok(found)
}

/// Where a leak is, in the push's terms, without what the upstream has in the same place.
struct Where<'a> {
    path: String,
    commit: &'a str,
    in_commit: bool,
    line: u64,
    there: &'static str,
}

fn places<'a>(nth: usize, leak: &Leak, contents: &'a Contents, push: &Push, known: &Known) -> Vec<Where<'a>> {
    let mut all = Vec::new();
    for (subject, line) in &leak.places {
        let line = *line;
        let other = |what: &str, commit: &'a str, in_commit| Where {
            path: what.to_owned(),
            commit,
            in_commit,
            line,
            there: "nothing of it",
        };
        match subject {
            Subject::File(file, inside) => {
                for place in &contents.files[*file].1 {
                    if known.has(nth, &place.path) {
                        continue;
                    }
                    let inside = inside.as_ref().filter(|member| !member.is_empty());
                    all.push(Where {
                        path: text(&place.path) + &inside.map(|member| format!("!{member}")).unwrap_or_default(),
                        commit: &place.commit,
                        in_commit: true,
                        line,
                        there: match known.has_path(&place.path) {
                            true => "this file, without this secret",
                            false => "no file of this name",
                        },
                    });
                }
            }
            Subject::Commit(commit) => all.push(other("commit message", &contents.commits[*commit], true)),
            Subject::Tag(tag) => all.push(other("tag message", &contents.tags[*tag], false)),
            Subject::Path(path) => {
                let (path, commit) = &contents.paths[*path];
                if known.has_path(path) {
                    continue;
                }
                let whole = text(path);
                all.push(other(if leak.secret.is_empty() { &whole } else { "file name" }, commit, true));
            }
            Subject::Ref(nth) => {
                if push.updates[*nth].old.is_none() {
                    all.push(other("ref name", "", false));
                }
            }
            Subject::PushOption(_) => all.push(other("push option", "", false)),
        }
    }
    all
}

fn lines(leak: &Leak, line: u64, redaction: &Redaction) -> Vec<(bool, u64, String)> {
    let number = |offset: i64| if line == 0 { 0 } else { line.saturating_add_signed(offset) };
    let mut lines = Vec::new();
    let before = leak.before.len() as i64;
    for (nth, text) in leak.before.iter().enumerate() {
        lines.push((false, number(nth as i64 - before), redaction.line(text)));
    }
    // As one, since a secret may go over several.
    if !leak.found.is_empty() {
        lines.push((true, number(0), redaction.line(&leak.found.join("\n"))));
    }
    for (nth, text) in leak.after.iter().enumerate() {
        lines.push((false, number((leak.found.len() + nth) as i64), redaction.line(text)));
    }
    lines
}

/// What tells that a secret was made for tests or documentation.
fn test_kind(secret: &str) -> Option<&'static str> {
    let lower = secret.to_ascii_lowercase();
    let has = |part: &str| lower.contains(part);
    if ["sk_test_", "rk_test_", "pk_test_"].iter().any(|prefix| has(prefix)) {
        Some("a test key of Stripe's, which moves no money")
    } else if has("example") {
        Some("it says that it is an example")
    } else if ["dummy", "placeholder", "changeme", "fake", "sample", "xxxxxx", "redacted"].iter().any(|word| has(word))
    {
        Some("it says that it is a stand-in")
    } else if ["test_", "_test", "test-", "-test", "sandbox"].iter().any(|word| has(word)) {
        Some("it says that it is for tests")
    } else {
        None
    }
}

/// HMAC-SHA256 (RFC 2104) over rule, path and secret, 128 bits of it in hex.
fn keyed_hash(key: &[u8], rule: &str, path: &str, secret: &str) -> Outcome<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|error| Refusal::new(format!("the key does not serve: {error}")))?;
    for part in [rule, path, secret] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    Ok(mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The three parts in words; of a long path the end is kept. The hash alone tells findings apart.
fn fingerprint(rule: &str, path: &str, hash: &str) -> String {
    let room = MAX_FINGERPRINT_BYTES.saturating_sub(rule.len() + hash.len() + 2);
    if path.len() <= room {
        return format!("{rule} {path} {hash}");
    }
    let start = path.len() - room.saturating_sub("…".len());
    let tail = (start..=path.len()).find_map(|at| path.get(at..)).unwrap_or_default();
    format!("{rule} …{tail} {hash}")
}
