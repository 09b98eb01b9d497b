//! What is asked about a push, so that the answer is about this push and nothing else? And what is its pusher told?

use std::fmt::Write;
use std::io::Read;
use std::time::Duration;

use bot_bottle_store::{MAX_JUSTIFICATION_BYTES, Message, visible};

use super::Outcome;
use super::contents::Contents;
use super::findings::{Finding, Redaction};
use super::git::{Objects, text};
use super::push::{Forced, Push};
use crate::told::asks;

/// So much of the justification is used by the list of places; the payload has all of them.
const PLACES_LISTED: usize = MAX_JUSTIFICATION_BYTES - 4_000;
/// So many places are spelled out to the pusher.
const PLACES_TOLD: usize = 10;
/// Of one secret, so many other places are listed to the operator, and named in a sentence.
const PLACES_OF_ONE: usize = 50;
const PLACES_NAMED: usize = 3;
/// As much of an id as people read.
const SHORT: usize = 12;

/// What there is to be decided about a push.
pub struct Question<'a> {
    pub push: &'a Push,
    pub forced: Forced,
    pub contents: &'a Contents,
    pub findings: Vec<&'a Finding>,
    pub redaction: &'a Redaction,
    /// Secrets that are in the same place in what the repository has.
    pub known: usize,
    /// Findings that a grant covers.
    pub granted: usize,
}

/// Of a commit, what tells it apart.
struct Commit {
    author: String,
    subject: String,
    parents: usize,
}

impl Question<'_> {
    /// In one line for each finding, after a sentence about the push.
    pub fn justification(&self) -> String {
        let mut text = self.sentence();
        let mut hidden = 0;
        for finding in &self.findings {
            let place = finding.place();
            if text.len() + place.len() > PLACES_LISTED {
                hidden += 1;
            } else {
                text += &format!("\n{place}");
            }
        }
        if hidden > 0 {
            text += &format!("\nand {hidden} more");
        }
        text
    }

    pub fn sentence(&self) -> String {
        self.redaction.clean(&self.push.sentence(self.contents.commits.len(), &self.forced))
    }

    /// All that an approval is about. Another push, or the same with another finding, is another text.
    pub fn payload(&self, objects: &mut Objects) -> Outcome<String> {
        let count = self.findings.len();
        let mut text = format!("gitleaks found {count} possible secret{}:\n", if count == 1 { "" } else { "s" });
        for (nth, finding) in self.findings.iter().enumerate() {
            let _ = writeln!(text, "\n{}. {} in {}", nth + 1, finding.rule, finding.path);
            let _ = writeln!(text, "   {}", finding.description);
            if finding.in_commit && !finding.commit.is_empty() {
                let commit = self.commit(&finding.commit, objects)?;
                let _ = writeln!(
                    text,
                    "   {} commit {} by {}: {}",
                    finding.spot(),
                    short(&finding.commit),
                    commit.author,
                    commit.subject
                );
            }
            for (secret, number, line) in &finding.lines {
                let mark = if *secret { '>' } else { ' ' };
                let number = if *number == 0 { String::new() } else { number.to_string() };
                let _ = writeln!(text, "   {mark}{number:>5} | {line}");
            }
            if !finding.elsewhere.is_empty() {
                let _ = writeln!(text, "   and {}", finding.elsewhere());
            }
            if let Some(kind) = finding.test_kind {
                let _ = writeln!(text, "   kind: {kind}");
            }
            let _ = writeln!(text, "   already there: {}", finding.there);
            let _ = writeln!(text, "   {}", finding.fingerprint);
        }
        let _ = writeln!(text, "\nThe push to {} that this is about, and no other:", self.push.repository);
        for line in self.push.lines(self.contents.commits.len(), &self.forced) {
            let _ = writeln!(text, "   {}", self.redaction.clean(&line));
        }
        if self.known > 0 {
            let _ = writeln!(
                text,
                "   {} secret{} not listed: the repository has the same in the same file already",
                self.known,
                plural(self.known)
            );
        }
        if self.granted > 0 {
            let _ = writeln!(text, "   {} finding{} not listed: granted before", self.granted, plural(self.granted));
        }
        Ok(text)
    }

    /// For the one who pushes: what, where, and how it goes away.
    pub fn told(&self, objects: &mut Objects) -> Outcome<String> {
        let mut told = format!("gitleaks found possible secrets in {}\n", self.sentence());
        for finding in self.findings.iter().take(PLACES_TOLD) {
            let _ = writeln!(told, "    {}", finding.place());
            if let Some((_, _, line)) = finding.lines.iter().find(|(secret, ..)| *secret) {
                let _ = writeln!(told, "        {}", line.trim());
            }
            let _ = writeln!(told, "        {}", finding.description);
            if let Some(kind) = finding.test_kind {
                let _ = writeln!(told, "        perhaps harmless: {kind}");
            }
        }
        if self.findings.len() > PLACES_TOLD {
            let _ = writeln!(told, "    and {} more", self.findings.len() - PLACES_TOLD);
        }
        let _ = writeln!(told, "\nThe upstream has nothing of this push. {}", self.way_out(objects)?);
        Ok(told)
    }

    /// The commands that take the findings out of what is pushed.
    fn way_out(&self, objects: &mut Objects) -> Outcome<String> {
        let mut steps = Vec::new();
        let of = |what: &str| self.findings.iter().any(|finding| finding.path == what && !finding.in_commit);
        if of("ref name") {
            steps.push("The name of the branch or tag is shown to everybody: push it under another one.".to_owned());
        }
        if of("tag message") {
            steps.push("Make the tag again with another message: git tag --force --annotate NAME".to_owned());
        }
        if of("push option") {
            steps.push("Push again without that push option.".to_owned());
        }
        let commits: Vec<&str> = self.findings.iter().flat_map(|finding| finding.commits()).collect();
        let oldest = self.contents.commits.iter().find(|id| commits.contains(&id.as_str()));
        if let Some(oldest) = oldest {
            let only_messages = self.findings.iter().filter(|f| f.in_commit).all(|f| f.path == "commit message");
            let edit = if only_messages { "" } else { " --all --no-edit" };
            let single = commits.iter().all(|id| id == oldest) && self.push.tips().any(|tip| tip == oldest);
            let push =
                if self.push.updates.iter().any(|u| u.old.is_some()) { "git push (the same way)" } else { "git push" };
            if single {
                steps.push(format!(
                    "A commit on top that removes it does not help: this one would still be pushed. To change it itself:\n\
                     {}    git commit --amend{edit}\n    {push}",
                    if only_messages { "" } else { "    (edit the file)\n" },
                ));
            } else {
                let parents = self.commit(oldest, objects)?.parents;
                let from = if parents == 0 { "--root".to_owned() } else { format!("{}^", short(oldest)) };
                let merges = if self.has_merges(objects)? { " --rebase-merges" } else { "" };
                let (mark, amend) = match only_messages {
                    true => ("reword", String::new()),
                    false => (
                        "edit",
                        "    (edit the file)\n    git commit --amend --all --no-edit\n    git rebase --continue\n"
                            .to_owned(),
                    ),
                };
                let list: Vec<&str> = self.distinct(&commits);
                steps.push(format!(
                    "A commit on top that removes it does not help: the old one would still be pushed. To change it itself:\n    \
                     git rebase --interactive{merges} {from}\n    (mark as \"{mark}\": {})\n{amend}    {push}",
                    list.join(", ")
                ));
            }
        } else if self.findings.iter().any(|f| f.in_commit) {
            steps.push("Take it out of the file, make the tag again, and push that.".to_owned());
        }
        Ok(steps.join("\n"))
    }

    fn distinct<'b>(&self, commits: &[&'b str]) -> Vec<&'b str> {
        let mut list: Vec<&str> = Vec::new();
        for id in commits {
            if !list.contains(&short(id)) && list.len() < PLACES_TOLD {
                list.push(short(id));
            }
        }
        list
    }

    fn has_merges(&self, objects: &mut Objects) -> Outcome<bool> {
        let recent: Vec<&String> = self.contents.commits.iter().rev().take(1_000).collect();
        let mut merges = false;
        objects.each(recent.iter().map(|id| id.as_str()), |_, content| {
            merges |= read_commit(content).parents > 1;
            Ok(())
        })?;
        Ok(merges)
    }

    fn commit(&self, id: &str, objects: &mut Objects) -> Outcome<Commit> {
        let mut commit = None;
        objects.each([id], |_, content| {
            commit = Some(read_commit(content));
            Ok(())
        })?;
        let mut commit = commit.unwrap_or(Commit { author: String::new(), subject: String::new(), parents: 1 });
        commit.author = self.redaction.clean(&commit.author);
        commit.subject = self.redaction.clean(&commit.subject);
        Ok(commit)
    }
}

fn read_commit(content: &mut dyn Read) -> Commit {
    let mut bytes = Vec::new();
    let _ = content.take(1 << 16).read_to_end(&mut bytes);
    let all = text(&bytes);
    let (head, message) = all.split_once("\n\n").unwrap_or((&all, ""));
    let author = head.lines().find_map(|line| line.strip_prefix("author ")).unwrap_or_default();
    // Without the time: seconds since 1970 tell nobody anything.
    let author = author.rfind('>').map_or(author, |at| &author[..=at]);
    Commit {
        author: author.chars().take(120).collect(),
        subject: message.lines().next().unwrap_or_default().chars().take(120).collect(),
        parents: head.lines().filter(|line| line.starts_with("parent ")).count(),
    }
}

impl Finding {
    /// As an editor takes it.
    fn spot(&self) -> String {
        if self.line > 0 { format!("{}:{} in", self.path, self.line) } else { "in".to_owned() }
    }

    /// Rule, path, line and commit in words.
    pub fn place(&self) -> String {
        let mut place = format!("{} in {}", self.rule, self.path);
        if self.line > 0 {
            let _ = write!(place, ", line {}", self.line);
        }
        if !self.commit.is_empty() {
            let _ = write!(place, ", {} {}", if self.in_commit { "commit" } else { "tag" }, short(&self.commit));
        }
        match self.elsewhere.len() {
            0 => {}
            1..=PLACES_NAMED => place += &format!(", and {}", self.elsewhere()),
            more => place += &format!(" and {more} more places"),
        }
        place
    }

    /// Its other places.
    fn elsewhere(&self) -> String {
        let place = |(commit, line): &(String, u64)| {
            let line = if *line > 0 { format!("line {line}") } else { String::new() };
            let commit = match commit.as_str() {
                "" => String::new(),
                id => format!("{} {}", if self.in_commit { "commit" } else { "tag" }, short(id)),
            };
            [line, commit].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" in ")
        };
        let listed: Vec<String> = self.elsewhere.iter().take(PLACES_OF_ONE).map(place).collect();
        match self.elsewhere.len() - listed.len() {
            0 => listed.join(", "),
            1 => listed.join(", ") + " and 1 more place",
            more => listed.join(", ") + &format!(" and {more} more places"),
        }
    }

    fn commits(&self) -> impl Iterator<Item = &str> {
        let all = [&self.commit].into_iter().chain(self.elsewhere.iter().map(|(commit, _)| commit));
        all.map(String::as_str).filter(|id| self.in_commit && !id.is_empty())
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// How to go on, once there is an id to name.
pub fn waiting(id: &str, bottle: &str, patience: Duration) -> String {
    let seconds = patience.as_secs_f64().ceil();
    format!(
        "waiting up to {seconds} s for the operator of bottle {bottle} to decide; Ctrl-C takes the question back\n    \
         the operator lets this push through with: bot-bottle approve {} --notes WHY",
        visible(id, false)
    )
}

/// What the operator asks back, and how to answer it.
pub fn asked(question: &Message) -> String {
    format!(
        "{}\n    the push is still held: answer with the tool answer-question of the supervise server (proposal_id {}),\n    \
         or stop this push (Ctrl-C), amend it and push again",
        asks(question),
        question.proposal_id
    )
}
