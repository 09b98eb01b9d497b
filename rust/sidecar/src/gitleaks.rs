//! What did gitleaks find in a push, told so that nothing of a secret is left and each finding has a lasting identity?
//!
//! The git gate's hook pipes gitleaks' own JSON through here; the secret it carries is hashed with the gate's key and
//! dropped. The input is a stream of JSON values: for each run of gitleaks its report (an array), then what the hook
//! knows about that run (a [`Run`]), and at the very end an [`End`]. A stream that breaks off, a run that ended with
//! another exit code, or one that did not find the canary the hook had put at the end of what it was to read, is an
//! error: the push was not scanned to its end, whatever the report says.

use std::collections::{BTreeMap, HashMap};

use bot_bottle_store::visible;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// gitleaks' exit code for "leaks found", as the hook asks for it (`--exit-code`), so that it is none of its failures.
const LEAKS_FOUND: i64 = 42;
/// The rule that the hook adds to gitleaks' own, so that every sound run finds something.
const CANARY_RULE: &str = "bot-bottle-canary";
/// A shorter key could be guessed, and with it the secrets behind the fingerprints.
const KEY_BYTES: usize = 32;
/// What a grant's fingerprint may measure.
const MAX_FINGERPRINT_BYTES: usize = 256;

/// One entry of gitleaks' report; what is not named here is not needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Leak {
    #[serde(rename = "RuleID")]
    rule: String,
    description: String,
    start_line: u64,
    #[serde(rename = "Match")]
    matched: String,
    secret: String,
    file: String,
    commit: String,
}

/// What the hook says after each report.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    /// What was read, for messages.
    run: String,
    exit: i64,
    /// The text hidden at the end of what gitleaks was to read.
    canary: String,
    /// Merge commit → number of its parents. gitleaks reads a merge once against each of them.
    #[serde(default)]
    parents: HashMap<String, usize>,
    /// Where a text put together from several objects has which, by first line, ascending; empty for files.
    #[serde(default)]
    sections: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    line: u64,
    what: String,
    #[serde(default)]
    object: String,
}

/// The last value of the stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// How many runs there were.
    end: usize,
    /// What is pushed where, in words; secrets in it are redacted as everywhere.
    push: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Leaks(Vec<Leak>),
    Run(Run),
    End(End),
}

/// The redacted account of a push.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What is pushed where.
    pub push: String,
    /// Each distinct finding once, by path, rule and fingerprint.
    pub findings: Vec<Finding>,
}

/// A secret that a rule saw in a path, however often it is there.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Rule, path and a keyed hash over both and the secret: the same after a rebase, another for another secret.
    pub fingerprint: String,
    /// gitleaks' name of the rule.
    pub rule: String,
    /// What the rule looks for, in gitleaks' words.
    pub description: String,
    /// The file, or `commit message` and the like.
    pub path: String,
    /// What matched, with `REDACTED` for every secret of the push.
    #[serde(rename = "match")]
    pub matched: String,
    /// Line of the first place.
    pub line: u64,
    /// Commit (or tag) of the first place, empty where there is none.
    pub commit: String,
    /// Number of places.
    pub places: usize,
}

/// The redacted report of `input`, a stream as the module describes it; `key` is the gate's own and never leaves it.
///
/// An error is one sentence that ends the push.
pub fn report(input: &str, key: &[u8]) -> Result<Report, String> {
    if key.len() < KEY_BYTES {
        return Err(format!("the key has {} bytes instead of {KEY_BYTES}; install the git gate again", key.len()));
    }
    let (leaks, push) = sound(input)?;
    let mut secrets: Vec<&str> = leaks.iter().map(|leak| leak.secret.as_str()).filter(|s| !s.is_empty()).collect();
    // A secret may be part of another: the longest goes first.
    secrets.sort_unstable_by_key(|secret| (std::cmp::Reverse(secret.len()), *secret));
    secrets.dedup();
    let clean = |text: &str| {
        let redacted = secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "REDACTED"));
        visible(&redacted, false).into_owned()
    };

    let mut findings: BTreeMap<(String, String, String), Finding> = BTreeMap::new();
    for leak in &leaks {
        let (rule, path) = (clean(&leak.rule), clean(&leak.file));
        let fingerprint = fingerprint(&rule, &path, &keyed_hash(key, leak)?);
        findings
            .entry((path.clone(), rule.clone(), fingerprint.clone()))
            .and_modify(|finding| finding.places += 1)
            .or_insert_with(|| Finding {
                fingerprint,
                rule,
                description: clean(&leak.description),
                path,
                matched: clean(&leak.matched),
                line: leak.start_line,
                commit: leak.commit.clone(),
                places: 1,
            });
    }
    Ok(Report { push: clean(&push), findings: findings.into_values().collect() })
}

impl Report {
    /// For a shell: the push on the first line, then a finding on each, its fields between tabs in the order
    /// fingerprint, rule, path, line, commit, places, match, description. No field holds a tab or a newline.
    pub fn lines(&self) -> String {
        let mut text = format!("{}\n", self.push);
        for f in &self.findings {
            let fields = [
                &f.fingerprint,
                &f.rule,
                &f.path,
                &f.line.to_string(),
                &f.commit,
                &f.places.to_string(),
                &f.matched,
                &f.description,
            ];
            text.push_str(&fields.map(String::as_str).join("\t"));
            text.push('\n');
        }
        text
    }
}

/// All leaks of a stream that is whole, canaries left out and sections named, and what is pushed.
fn sound(input: &str) -> Result<(Vec<Leak>, String), String> {
    let mut found = Vec::new();
    let mut open: Option<Vec<Leak>> = None;
    let mut runs = 0;
    for value in serde_json::Deserializer::from_str(input).into_iter::<Value>() {
        // serde's own message would quote the input, and with it a secret.
        let value = value.map_err(|error| format!("gitleaks' report cannot be read at line {}", error.line()))?;
        match (value, open.take()) {
            (Value::Leaks(leaks), None) => open = Some(leaks),
            (Value::Run(run), leaks) => {
                found.extend(checked(leaks, &run)?);
                runs += 1;
            }
            (Value::End(end), None) if end.end == runs => return Ok((found, end.push)),
            (Value::Leaks(_) | Value::End(_), _) => return Err("gitleaks' reports are out of order".into()),
        }
    }
    Err("the scan broke off".into())
}

/// The leaks of one run that read everything: without its canary, and of a merge only what none of its parents has.
fn checked(leaks: Option<Vec<Leak>>, run: &Run) -> Result<Vec<Leak>, String> {
    let what = &run.run;
    let whole = |leak: &Leak| leak.rule == CANARY_RULE && leak.secret == run.canary;
    let mut leaks = match leaks {
        Some(leaks) if run.exit == LEAKS_FOUND && leaks.iter().any(whole) => leaks,
        // It ends well, too, after an error of git's.
        Some(_) if run.exit == 0 || run.exit == LEAKS_FOUND => {
            return Err(format!("gitleaks did not read {what} to the end"));
        }
        _ => return Err(format!("gitleaks failed on {what} (exit code {})", run.exit)),
    };
    leaks.retain(|leak| leak.rule != CANARY_RULE);

    let mut seen: HashMap<_, usize> = HashMap::new();
    leaks.retain(|leak| {
        let Some(parents) = run.parents.get(&leak.commit) else {
            return true;
        };
        // Without the column: gitleaks counts it differently on the first line of a hunk.
        let (file, rule, secret) = (leak.file.clone(), leak.rule.clone(), leak.secret.clone());
        let times = seen.entry((leak.commit.clone(), file, rule, secret, leak.start_line)).or_default();
        *times += 1;
        *times == *parents
    });

    for leak in leaks.iter_mut().filter(|_| !run.sections.is_empty()) {
        let after = run.sections.partition_point(|section| section.line <= leak.start_line);
        let section = &run.sections[after.saturating_sub(1)];
        leak.file.clone_from(&section.what);
        leak.commit.clone_from(&section.object);
        leak.start_line = leak.start_line.saturating_sub(section.line);
    }
    Ok(leaks)
}

/// HMAC-SHA256 (RFC 2104) over rule, path and secret, 128 bits of it in hex.
fn keyed_hash(key: &[u8], leak: &Leak) -> Result<String, String> {
    // A rule about names alone has no secret; the commit stands for it, so that other content is asked about again.
    let secret = if leak.secret.is_empty() { &leak.commit } else { &leak.secret };
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| format!("the key does not serve: {error}"))?;
    for part in [&leak.rule, &leak.file, secret] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    const KEY: [u8; 32] = [7; 32];
    const CANARY: &str = "bot-bottle-canary-00";

    fn leak(path: &str, secret: &str, commit: &str, line: u64) -> Json {
        json!({"RuleID": "token", "Description": "A token", "StartLine": line, "EndLine": line, "StartColumn": 3,
            "Match": format!("key = \"{secret}\""), "Secret": secret, "File": path, "Commit": commit,
            "Message": secret, "Tags": [], "Fingerprint": "unused"})
    }

    fn canary() -> Json {
        json!({"RuleID": CANARY_RULE, "Description": "", "StartLine": 99, "Match": CANARY, "Secret": CANARY,
            "File": "bot-bottle-canary", "Commit": "ff"})
    }

    fn run(extra: Json) -> Json {
        let mut run = json!({"run": "the commits", "exit": 42, "canary": CANARY});
        run.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        run
    }

    fn stream(values: &[Json]) -> String {
        values.iter().map(|value| format!("{value}\n")).collect()
    }

    fn one(leaks: &[Json], extra: Json) -> Report {
        let mut all = leaks.to_vec();
        all.push(canary());
        let end = json!({"end": 1, "push": "1 commit to refs/heads/main"});
        report(&stream(&[json!(all), run(extra), end]), &KEY).expect("a sound stream")
    }

    fn fingerprints(report: &Report) -> Vec<&str> {
        report.findings.iter().map(|finding| finding.fingerprint.as_str()).collect()
    }

    #[test]
    fn nothing_of_a_secret_is_left() {
        let report = one(&[leak("hunter2.txt", "hunter2", "c1", 4), leak("b", "hunter2hunter3", "c1", 5)], json!({}));
        let shown = serde_json::to_string(&report).expect("json") + &report.lines();
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(report.findings[0].matched, "key = \"REDACTED\"");
        assert_eq!(report.findings[1].path, "b");
        assert_eq!(report.findings[0].path, "REDACTED.txt");
    }

    #[test]
    fn a_finding_keeps_its_identity_across_commits_and_lines_but_not_across_secrets_or_paths_or_keys() {
        let was = one(&[leak("a", "s1", "c1", 4)], json!({}));
        let moved = one(&[leak("a", "s1", "c2", 40), leak("a", "s1", "c3", 41)], json!({}));
        assert_eq!(fingerprints(&was), fingerprints(&moved));
        assert_eq!(moved.findings[0].places, 2);
        assert_ne!(fingerprints(&was), fingerprints(&one(&[leak("a", "s2", "c1", 4)], json!({}))));
        assert_ne!(fingerprints(&was), fingerprints(&one(&[leak("b", "s1", "c1", 4)], json!({}))));
        let input =
            stream(&[json!([leak("a", "s1", "c1", 4), canary()]), run(json!({})), json!({"end": 1, "push": ""})]);
        assert_ne!(fingerprints(&was), fingerprints(&report(&input, &[8; 32]).expect("sound")));
    }

    #[test]
    fn a_rule_without_a_secret_is_about_one_commit() {
        let (one_commit, other) =
            (one(&[leak("a.p12", "", "c1", 0)], json!({})), one(&[leak("a.p12", "", "c2", 0)], json!({})));
        assert_ne!(fingerprints(&one_commit), fingerprints(&other));
    }

    #[test]
    fn of_a_merge_only_what_no_parent_has_is_found() {
        let parents = json!({"parents": {"m": 2}});
        assert!(one(&[leak("a", "s1", "m", 4)], parents.clone()).findings.is_empty());
        assert!(one(&[leak("a", "s1", "m", 4), leak("a", "s1", "m", 9)], parents.clone()).findings.is_empty());
        assert_eq!(one(&[leak("a", "s1", "m", 4), leak("a", "s1", "m", 4)], parents.clone()).findings.len(), 1);
        assert_eq!(one(&[leak("a", "s1", "c", 4)], parents).findings.len(), 1);
    }

    #[test]
    fn a_section_names_what_a_line_of_the_text_belongs_to() {
        let sections = json!({"sections": [
            {"line": 2, "what": "commit message", "object": "c1"}, {"line": 9, "what": "ref name"}]});
        let report = one(&[leak("", "s1", "", 5), leak("", "s2", "", 10)], sections);
        let seen: Vec<_> = report.findings.iter().map(|f| (f.path.as_str(), f.commit.as_str(), f.line)).collect();
        assert_eq!(seen, [("commit message", "c1", 3), ("ref name", "", 1)]);
    }

    #[test]
    fn a_scan_that_is_not_whole_is_an_error() {
        let end = json!({"end": 1, "push": ""});
        let reports = json!([canary()]);
        for (values, says) in [
            (vec![], "broke off"),
            (vec![reports.clone()], "broke off"),
            (vec![reports.clone(), run(json!({}))], "broke off"),
            (vec![reports.clone(), end.clone()], "out of order"),
            (vec![reports.clone(), reports.clone()], "out of order"),
            (vec![reports.clone(), run(json!({})), json!({"end": 2, "push": ""})], "out of order"),
            (vec![run(json!({"exit": 1})), end.clone()], "failed on the commits (exit code 1)"),
            (vec![reports.clone(), run(json!({"exit": 1})), end.clone()], "failed on the commits (exit code 1)"),
            (vec![reports.clone(), run(json!({"exit": 0})), end.clone()], "did not read the commits to the end"),
            (vec![json!([]), run(json!({})), end.clone()], "did not read the commits to the end"),
            (vec![reports, run(json!({"canary": "other"})), end], "did not read the commits to the end"),
        ] {
            let error = report(&stream(&values), &KEY).expect_err("not whole");
            assert!(error.contains(says), "{values:?}: {error}");
        }
    }

    #[test]
    fn a_report_that_is_no_report_is_refused_without_quoting_it() {
        for text in ["[{\"Secret\": \"hunter2\"", "hunter2", "[{\"RuleID\": 7, \"Secret\": \"hunter2\"}]", "null"] {
            let error = report(text, &KEY).expect_err("no report");
            assert!(error.contains("cannot be read") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(report("", b"short").expect_err("short").contains("5 bytes"));
    }

    #[test]
    fn fields_of_a_line_cannot_be_forged() {
        let report = one(&[leak("a\tb\nc\u{202e}", "s1", "c1", 4)], json!({}));
        assert_eq!(report.findings[0].path, "a<U+0009>b<U+000A>c<U+202E>");
        let lines: Vec<_> = report.lines().lines().map(|line| line.split('\t').count()).collect();
        assert_eq!(lines, [1, 8]);
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let long = format!("{}ü/settings.py", "dir/".repeat(200));
        let report = one(&[leak(&long, "s1", "c1", 4)], json!({}));
        let fingerprint = fingerprints(&report)[0];
        assert!(fingerprint.len() <= MAX_FINGERPRINT_BYTES && fingerprint.contains("ü/settings.py "), "{fingerprint}");
    }
}
