//! What does the helper print of a proposal, an answer and a question, for a person and for a program?

use std::io::Write;

use bot_bottle_store::{InboxItem, Message, Response, visible};
use serde_json::{Value, json};

pub(crate) fn as_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null) // these types have string keys and finite numbers only
}

pub(crate) fn answer(id: &str, status: &str, notes: &str) -> Value {
    json!({"proposal_id": id, "status": status, "notes": notes, "final_file": null})
}

/// A question, in the shape of the answer that is still to come.
pub(crate) fn asked(id: &str, question: &Message) -> Value {
    let mut told = answer(id, "question", &question.text);
    told["question_id"] = question.id.as_str().into();
    told["next_step"] = format!("bot-bottle-sidecar answer {} TEXT, then wait again", question.proposal_id).into();
    told
}

pub(crate) fn asks(question: &Message) -> String {
    let who = one_line(&question.written_by);
    format!("{who} asks about proposal {}:\n{}", question.proposal_id, visible(&question.text, true))
}

pub(crate) fn pending(id: &str) -> Value {
    answer(id, "pending", "")
}

pub(crate) fn one_line(text: &str) -> String {
    visible(text, false).into_owned()
}

pub(crate) fn decided(response: &Response) -> String {
    let mut text =
        format!("{} by {}", response.status.as_str(), one_line(response.decided_by.as_deref().unwrap_or("?")));
    if !response.notes.is_empty() {
        text.push_str(&format!("\nnotes: {}", visible(&response.notes, true)));
    }
    if let Some(diff) = response.diff.as_ref().map(|diff| diff.text()) {
        text.push_str(&format!("\n{}", visible(diff.trim_end(), true)));
    }
    text
}

pub(crate) fn describe(item: &InboxItem) -> String {
    let proposal = &item.proposal;
    let mut lines = vec![
        format!("id             {}", one_line(&proposal.id)),
        format!("state          {}", item.state.as_str()),
        format!("tool           {}", one_line(&proposal.tool)),
        format!("arrived        {}", one_line(&proposal.arrival_timestamp)),
        format!("payload        {} bytes, sha256 {}", proposal.proposed_file.len(), proposal.payload_sha256),
        format!("justification  {}", visible(&proposal.justification, true)),
    ];
    if let Some(expires_at) = &proposal.expires_at {
        lines.push(format!("expires        {expires_at}"));
    }
    if let Some(id) = &proposal.revises {
        lines.push(format!("revises        {}", one_line(id)));
    }
    for message in &item.thread {
        let who = if message.is_question() { "asked" } else { "answered" };
        let text = match &message.damaged {
            Some(reason) => format!("not to be believed: {}", one_line(reason)),
            None => visible(&message.text, true).into_owned(),
        };
        lines.push(format!("{who:<13}  {text}"));
    }
    if let Some(response) = &item.response {
        lines.push(format!("answer         {}", decided(response)));
    }
    lines.push(String::new());
    lines.push(visible(&proposal.proposed_file, true).into_owned());
    lines.join("\n")
}

/// In ASCII alone: what could deceive a terminal that it is shown on is `\uXXXX`.
pub(crate) fn one_line_of_json(value: &Value) -> String {
    let mut line = String::new();
    for letter in value.to_string().chars() {
        if letter.is_ascii() && letter != '\x7f' {
            line.push(letter);
        } else {
            // Outside of strings JSON is ASCII.
            line.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    line
}

/// A reader that has gone is no error.
pub(crate) fn print(as_json: bool, value: &Value, text: impl FnOnce() -> String) {
    let shown = if as_json { one_line_of_json(value) } else { text() };
    if !shown.is_empty() {
        let _ = writeln!(std::io::stdout(), "{shown}");
    }
}
