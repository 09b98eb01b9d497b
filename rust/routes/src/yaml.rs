//! How is YAML read so that a human and a program cannot see different things in it?
//!
//! Only mappings, lists and scalars, each key once, every value with its line. Anchors, tags, further documents and
//! deep nesting are refused: they hide content from a reviewer or cost more to expand than to send.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

const MAX_DEPTH: usize = 12;
const MAX_QUOTED: usize = 60;
const ANCHOR: &str = "an anchor or alias; write the value out where it is used";

/// The text is not plain YAML, from which line on and why.
pub struct PlainYamlError {
    pub line: usize,
    pub problem: String,
}

/// A value with the line it begins on.
pub struct Node {
    pub value: Value,
    pub line: usize,
}

pub enum Value {
    /// `plain` marks text without quotes, where `false` is more than a word.
    Text {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<(String, Node)>),
}

/// The one document in `text`, or `None` if there is none.
pub fn parse(text: &str) -> Result<Option<Node>, PlainYamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_characters(text)?;
    let mut events = Events(Parser::new_from_str(text));
    let mut root = None;
    while let Some((event, line)) = events.next()? {
        if let Event::DocumentStart(_) = event {
            if root.is_some() {
                return Err(problem(line, "a second document; keep one, without another ---"));
            }
            root = Some(events.node(0)?);
        }
    }
    Ok(root)
}

/// YAML ends a line, and with it a comment, at breaks that most editors do not show; and a parser may be more lenient
/// about control characters than whoever reads the file is able to see them.
fn check_characters(text: &str) -> Result<(), PlainYamlError> {
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => line += 1,
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                let odd =
                    format!("the line break U+{:04X}, which not everybody sees; use a plain one", character as u32);
                return Err(problem(line, odd));
            }
            // YAML 1.2, 5.1: what is not printable is not YAML.
            '\t' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {}
            _ => {
                let odd = format!("not YAML: U+{:04X} is a character that YAML does not allow", character as u32);
                return Err(problem(line, odd));
            }
        }
    }
    Ok(())
}

/// `text` for an error message: short, in quotes, and in ASCII, since whoever wrote it may be hostile.
pub fn quoted(text: &str) -> String {
    let cut = text.chars().nth(MAX_QUOTED).is_some();
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut found = String::from(quote);
    for character in text.chars().take(MAX_QUOTED) {
        match character {
            '\\' => found.push_str("\\\\"),
            '\n' => found.push_str("\\n"),
            '\r' => found.push_str("\\r"),
            '\t' => found.push_str("\\t"),
            ' '..='~' if character == quote => found.extend(['\\', quote]),
            ' '..='~' => found.push(character),
            _ => {
                let code = character as u32;
                found.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    if cut {
        found.push_str("...");
    }
    found.push(quote);
    found
}

fn problem(line: usize, problem: impl Into<String>) -> PlainYamlError {
    PlainYamlError { line, problem: problem.into() }
}

// Events, not a loaded document: that keeps the last of two equal keys, expands anchors and forgets the lines.
struct Events<'a>(Parser<'a, saphyr_parser::StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, PlainYamlError> {
        Ok(self.spanned()?.map(|(event, span)| (event, span.start.line().max(1))))
    }

    fn spanned(&mut self) -> Result<Option<(Event<'a>, Span)>, PlainYamlError> {
        match self.0.next_event() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => {
                let line = error.marker().line().max(1);
                // The parser's own limit is met before ours where it looks ahead.
                if error.info().contains("recursion limit") {
                    return Err(too_deep(line));
                }
                if error.info().contains("unknown anchor") {
                    return Err(problem(line, ANCHOR));
                }
                // Not the parser's own words: they change from one of its versions to the next.
                let column = error.marker().col() + 1;
                let advice = "look at the indentation, tabs, quotes and brackets around it";
                Err(problem(line, format!("not YAML at column {column}; {advice}")))
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, PlainYamlError> {
        let (event, span) = self.spanned()?.ok_or_else(|| problem(1, "not YAML: it ends too early"))?;
        let line = span.start.line().max(1);
        let (anchor, tag): (usize, Option<&Tag>) = match &event {
            Event::Alias(_) => (1, None),
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.as_deref())
            }
            _ => (0, None),
        };
        if anchor != 0 {
            return Err(problem(line, ANCHOR));
        }
        if tag.is_some() {
            return Err(problem(line, "a YAML tag (!); remove it"));
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(line));
        }
        let value = match event {
            Event::Scalar(text, style, _, _) => {
                // The parser says `~` for a value that is not there.
                let text =
                    if style == ScalarStyle::Plain && span.is_empty() { String::new() } else { text.into_owned() };
                Value::Text { text, plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while !self.at_end(&Event::SequenceEnd)? {
                    items.push(self.node(depth + 1)?);
                }
                Value::List(items)
            }
            Event::MappingStart(..) => Value::Mapping(self.mapping(depth)?),
            _ => return Err(problem(line, "not YAML: a value is missing")),
        };
        Ok(Node { value, line })
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(String, Node)>, PlainYamlError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while !self.at_end(&Event::MappingEnd)? {
            let key = self.node(depth + 1)?;
            let Value::Text { text, .. } = key.value else {
                return Err(problem(key.line, "a key must be a word"));
            };
            if entries.iter().any(|(known, _)| *known == text) {
                return Err(problem(key.line, format!("the key {} a second time; keep one", quoted(&text))));
            }
            let value = self.node(depth + 1)?;
            entries.push((text, value));
        }
        Ok(entries)
    }

    /// Whether the next event is `end`, which is taken then.
    fn at_end(&mut self, end: &Event<'_>) -> Result<bool, PlainYamlError> {
        if !matches!(self.0.peek(), Some(Ok((event, _))) if event == end) {
            return Ok(false);
        }
        self.next()?;
        Ok(true)
    }
}

fn too_deep(line: usize) -> PlainYamlError {
    problem(line, format!("nested deeper than {MAX_DEPTH} levels"))
}
