//! What does an answer of the broker mean: is it good, final, or a matter of trying again?

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::reply::Answer;
use crate::error::{Error, broker_class};

pub(super) enum Verdict {
    /// What was asked for.
    Good(Vec<u8>),
    /// No, and asking again would not change that.
    Refused(Error),
    /// Nothing was done; ask again, after so long at the earliest.
    Later(Error, Duration),
}

/// A problem document (RFC 9457); `title` is the error's class in `bot_bottle.errors`, `data` its attributes.
#[derive(Deserialize)]
pub(super) struct Problem {
    title: String,
    detail: String,
    #[serde(default)]
    data: Box<Map<String, Value>>,
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::Problem { class: broker_class(&problem.title), message: problem.detail, data: problem.data }
    }
}

pub(super) fn judge(answer: Answer, url: &str) -> Verdict {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Verdict::Good(answer.body);
    }
    let pause = answer.retry_after.unwrap_or_default();
    let problem = answer.problem.then(|| serde_json::from_slice::<Problem>(&answer.body).ok()).flatten();
    match problem.map(Error::from) {
        // Of the errors that the broker passes on, these alone are about the moment.
        Some(error) if error.is_safe_to_retry() => Verdict::Later(error, pause),
        Some(error) => Verdict::Refused(error),
        None => {
            let reason = format!("it answered with status {status} and no problem document, so it is no broker");
            let error = Error::Unreachable { url: url.to_owned(), reason };
            // A proxy whose broker is away.
            if status >= 500 { Verdict::Later(error, pause) } else { Verdict::Refused(error) }
        }
    }
}
