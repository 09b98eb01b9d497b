//! What does a stream say, and what do the streams say that are encoded in it? One layer for each.
//!
//! A layer keeps a window of its stream. New bytes are looked at once: a filter finds where something that is looked
//! for may begin, a classification of eight bytes at a time finds where encoded text may be. Decoded text is a layer
//! below this one, and is looked at in the same way.

use std::ops::Range;

use crate::base64::{Base64, Run};
use crate::budget::{Budget, Held};
use crate::escapes::{Escapes, spelled_last};
use crate::filter::{Magic, Needle};
use crate::formats::FORMATS;
use crate::hex::Hex;
use crate::inflate::{Inflater, may_be_deflate};
use crate::judge::{Candidate, Verdict};
use crate::map::Map;
use crate::pem;
use crate::rules::{Rules, Target};
use crate::shape::{Outcome, Progress};
use crate::wide::Wide;
use crate::{Place, ScanError, Step};

/// How deep encodings may be nested; what is deeper is refused.
const MAX_DEPTH: usize = 16;
/// Bytes of a stream that stay in its window: what rules and decoders look back at.
const KEEP: usize = 2304;
/// Bytes beyond which the window is shortened.
const SLACK: usize = 16 << 10;
/// Bytes that one decompression step gives out at most, and the first one.
const PIECE: usize = 16 << 10;
const FIRST_PIECE: usize = 512;
/// What repeats with this period in decompressed data is looked at a few times only: pixels, zeros, padding. A multiple of
/// the usual periods and of what a group of base64, hex or UTF-16 takes.
const PERIOD: usize = 192;
const REPEATS: usize = KEEP / PERIOD;
/// Decompressed bytes that cost a step; what they cost more than that is in the compressed bytes.
const INFLATED_PER_STEP: usize = 8;
/// Work that beginning to decompress is counted as.
const INFLATER_STEPS: usize = 2000;
/// Work that a finding is counted as.
const FINDING_STEPS: usize = 4096;
/// Between two pieces of decoded text; in no secret that is looked for.
const GAP: [u8; 2] = [0xff, 0xfe];
/// Bytes that tell whether a raw deflate stream begins.
const DEFLATE_HEAD: usize = 10;
const BLOCK: usize = 64;

/// What is the same for all layers of a scanner.
pub(crate) struct Context<'a> {
    pub rules: &'a Rules,
    pub budget: &'a Budget,
    pub place: &'a Place,
}

/// A finding as a layer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub id: String,
    pub target: Target,
    pub secret: Vec<u8>,
    pub span: Option<Range<u64>>,
    /// Innermost first.
    pub how: Vec<Step>,
}

/// A match under way.
#[derive(Debug)]
struct Runner {
    target: Target,
    shape: usize,
    /// Bytes of it that the format fixes.
    prefix: usize,
    start: u64,
    progress: Progress,
}

/// Compressed data in the stream.
struct Inside {
    inflater: Inflater,
    step: Step,
    layer: Box<Layer>,
    /// The content coding, if it is the whole body: then it has to be what it says.
    coding: Option<String>,
    /// Whether it is in the middle of a member.
    under_way: bool,
    _held: Held,
}

/// One stream.
#[derive(Default)]
pub(crate) struct Layer {
    depth: usize,
    is_plain: bool,
    window: Vec<u8>,
    /// The position in the stream of the window's first byte.
    base: u64,
    /// Bytes of the window that have been looked at.
    seen: usize,
    map: Map,
    runners: Vec<Runner>,
    /// Where something encoded begins, such as raw deflate, which has no other mark.
    begins: Vec<u64>,
    /// Where a piece of decoded text ends and the next one does not go on with it.
    gaps: Vec<u64>,
    base64: Base64,
    hex: Hex,
    escapes: Escapes,
    wide: Wide,
    /// Where a run begins that is not yet long enough.
    unknown: Option<u64>,
    inside: Vec<Inside>,
    below: Below,
    held: Option<Held>,
    /// How often the last [`PERIOD`] bytes have been repeated.
    repeats: usize,
}

#[derive(Default)]
struct Below {
    base64: Option<Box<[Layer; 4]>>,
    hex: Option<Box<[Layer; 2]>>,
    escapes: Option<Box<Layer>>,
    wide: Option<Box<Layer>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Layer").field("depth", &self.depth).field("end", &self.end()).finish_non_exhaustive()
    }
}

impl Layer {
    /// The layer of a place, whose content is encoded by `codings` in the order applied.
    pub(crate) fn top(context: &Context<'_>, codings: &[(String, Step)]) -> Result<Layer, ScanError> {
        let mut layer = Layer { is_plain: true, ..Layer::default() };
        if let Some(((coding, step), inner)) = codings.split_last() {
            let mut below = Layer::top(context, inner)?;
            below.set_depth(1);
            let inside = Inside::new(*step, Box::new(below), Some(coding.clone()), context)?;
            layer.inside.push(inside);
        } else {
            layer.begins.push(0);
        }
        Ok(layer)
    }

    fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
        self.inside.iter_mut().for_each(|inside| inside.layer.set_depth(depth + 1));
    }

    fn below(&self) -> Result<usize, ScanError> {
        if self.depth < MAX_DEPTH { Ok(self.depth + 1) } else { Err(ScanError::OverBudget { what: "nesting" }) }
    }

    fn end(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Takes the next bytes of a stream that is read as it is.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.window.extend_from_slice(bytes);
    }

    /// A decoded byte, spelled by `len` bytes at `position` of the stream above.
    pub(crate) fn unit(&mut self, byte: u8, position: u64, len: u64) {
        self.map.unit(self.end(), position, len);
        self.window.push(byte);
    }

    /// Room for `count` decoded bytes that are spelled at `position`, see [`Map::run`].
    pub(crate) fn run(&mut self, position: u64, ratio: (u64, u64, u64), count: usize) -> &mut [u8] {
        self.map.run(self.end(), position, ratio, count);
        let from = self.window.len();
        self.window.resize(from + count, 0);
        &mut self.window[from..]
    }

    /// What comes next does not go on with what came before.
    pub(crate) fn gap(&mut self) {
        if !self.window.is_empty() {
            self.gaps.push(self.end());
            self.window.extend_from_slice(&GAP);
        }
    }

    /// What comes so many bytes further on is the beginning of something encoded.
    pub(crate) fn begins_ahead(&mut self, bytes: u64) {
        self.begins.push(self.end() + bytes);
    }

    /// Shortens repetitions in what is new from `from` on. Decompressed bytes have no span, so nobody counts them; only
    /// data that is compressed itself needs each.
    fn collapse(&mut self, from: usize) {
        if from < PERIOD || !self.inside.is_empty() {
            return;
        }
        let (mut to, mut at) = (from, from);
        while at + PERIOD <= self.window.len() {
            let is_same = self.window[at..at + PERIOD] == self.window[to - PERIOD..to];
            self.repeats = if is_same { self.repeats + 1 } else { 0 };
            if self.repeats <= REPEATS {
                self.window.copy_within(at..at + PERIOD, to);
                to += PERIOD;
            }
            at += PERIOD;
        }
        self.window.copy_within(at.., to);
        self.window.truncate(to + self.window.len() - at);
    }

    /// Looks at what is new. `last`: nothing follows.
    pub(crate) fn process(&mut self, context: &Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), ScanError> {
        if self.seen == self.window.len() && !last {
            return Ok(());
        }
        if self.held.is_none() && self.depth > 0 {
            self.held = Some(context.budget.hold(SLACK)?);
        }
        context.budget.spend(self.window.len() - self.seen)?;
        let (fresh, magic) = self.find(context);
        self.runners.extend(fresh);
        self.match_runners(context, last, hits)?;
        self.inflate(context, magic, last, hits)?;
        self.decode(context, last)?;
        self.seen = self.window.len();
        self.process_below(context, last, hits)?;
        self.shorten();
        Ok(())
    }

    /// Where the first secret begins that is not yet complete.
    pub(crate) fn open(&self) -> Option<u64> {
        let own = self.runners.iter().map(|runner| runner.start).min();
        let inside = self.inside.iter().map(|inside| &*inside.layer);
        let below = self.below.all().chain(inside).filter_map(|layer| Some(layer.map.start(layer.open()?))).min();
        own.into_iter().chain(below).min()
    }

    fn find(&mut self, context: &Context<'_>) -> (Vec<Runner>, Vec<(Magic, usize)>) {
        let (mut fresh, mut magic) = (Vec::new(), Vec::new());
        let (text, base) = (self.window.as_slice(), self.base);
        let is_coded = self.inside.iter().any(|inside| inside.coding.is_some());
        context.rules.filter.scan(text, self.seen.saturating_sub(2), |needle, at| match needle {
            Needle::Magic(_) if is_coded => {}
            Needle::Magic(kind) => {
                let rest = &text[at..];
                let fits = |expected: &[u8]| rest.iter().zip(expected).all(|(a, b)| a == b);
                let begins = match kind {
                    Magic::Gzip => fits(b"\x1f\x8b\x08") && rest.get(3).is_none_or(|flags| flags & 0xe0 == 0),
                    Magic::Zstd => fits(b"\x28\xb5\x2f\xfd"),
                    Magic::Zip => fits(b"PK\x03\x04"),
                    Magic::Zlib => rest.get(2..).is_none_or(may_be_deflate),
                };
                if begins {
                    magic.push((kind, at));
                }
            }
            Needle::Anchor(index) => {
                let anchor = &context.rules.anchors[index];
                let Some(at) = at.checked_sub(anchor.offset) else { return };
                if !text[at..].iter().zip(&anchor.bytes).all(|(a, b)| a == b) {
                    return;
                }
                let befores = match anchor.target {
                    Target::Format(format) => FORMATS[format].before,
                    _ => &[0],
                };
                let begin = |target, start: usize, shape, prefix| Runner {
                    target,
                    shape,
                    prefix,
                    start: base + start as u64,
                    progress: Progress::default(),
                };
                for &before in befores {
                    let Some(start) = at.checked_sub(before) else { continue };
                    let prefix = before + anchor.bytes.len();
                    match anchor.target {
                        Target::Format(format) => {
                            let (shapes, not_after, _) = &context.rules.formats[format];
                            let in_word = |&byte: &u8| {
                                not_after[usize::from(byte)]
                                    && spelled_last(&text[..start]).is_none_or(|byte| not_after[usize::from(byte)])
                            };
                            if text[..start].last().is_some_and(in_word) {
                                continue;
                            }
                            fresh.extend((0..shapes.len()).map(|shape| begin(anchor.target, start, shape, prefix)));
                        }
                        target => fresh.push(begin(target, start, index, prefix)),
                    }
                }
            }
        });
        (fresh, magic)
    }

    fn match_runners(&mut self, context: &Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), ScanError> {
        let (text, base, is_plain) = (self.window.as_slice(), self.base, self.is_plain);
        let mut steps = 0;
        self.runners.retain_mut(|runner| {
            let start = (runner.start - base) as usize;
            let before = runner.progress.len;
            let (ended, id) = runner.advance(context.rules, text, start, last);
            steps += 1 + runner.progress.len.saturating_sub(before);
            let end = start + runner.progress.len;
            match ended {
                Outcome::Dead => return false,
                Outcome::Open => return true,
                Outcome::Match => {}
            }
            if let Target::Format(format) = runner.target {
                let not_before = &context.rules.formats[format].2;
                match text.get(end) {
                    None if !last && not_before.contains(&true) => return true,
                    Some(&byte) if not_before[usize::from(byte)] => return false,
                    _ => {}
                }
                let prefix = runner.prefix;
                let candidate = Candidate {
                    id: FORMATS[format].id,
                    text,
                    start,
                    end,
                    prefix,
                    last,
                    is_plain,
                    place: context.place,
                };
                match candidate.verdict() {
                    Verdict::NotSecret => return false,
                    Verdict::More => return true,
                    Verdict::Secret => {}
                }
            }
            let id = id.unwrap_or_else(|| context.rules.name(runner.target).0.to_string());
            let span = Some(runner.start..runner.start + runner.progress.len as u64);
            let secret = match runner.target {
                Target::Known(index) => context.rules.known[index].1.clone(),
                _ => text[start..end].to_vec(),
            };
            hits.push(Hit { id, target: runner.target, secret, span, how: Vec::new() });
            steps += FINDING_STEPS;
            false
        });
        context.budget.spend(steps)
    }

    fn inflate(
        &mut self,
        context: &Context<'_>,
        magic: Vec<(Magic, usize)>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), ScanError> {
        let seen = self.seen;
        let mut inside = std::mem::take(&mut self.inside);
        let mut keep = Vec::new();
        for each in inside.drain(..) {
            keep.extend(self.follow(context, each, seen, last, hits)?);
        }
        let mut found: Vec<(Step, usize)> = Vec::new();
        for (kind, at) in magic {
            let step = match kind {
                Magic::Gzip => Step::Gzip,
                Magic::Zstd => Step::Zstd,
                Magic::Zip => Step::Zip,
                Magic::Zlib => Step::Zlib,
            };
            found.push((step, at));
        }
        let (base, window) = (self.base, &self.window);
        let mut begins = std::mem::take(&mut self.begins);
        begins.retain(|&begin| {
            let Some(rest) = begin.checked_sub(base).filter(|&at| at as usize <= window.len()) else {
                return begin >= base;
            };
            let (rest, ends) = self.piece(rest as usize);
            if rest.len() < DEFLATE_HEAD && !last && !ends {
                return true;
            }
            if rest.len() >= DEFLATE_HEAD && may_be_deflate(rest) {
                found.push((Step::Deflate, (begin - base) as usize));
            }
            false
        });
        self.begins = begins;
        for (step, at) in found {
            context.budget.spend(INFLATER_STEPS)?;
            let layer = Layer { depth: self.below()?, begins: vec![0], ..Layer::default() };
            let begun = Inside::new(step, Box::new(layer), None, context)?;
            keep.extend(self.follow(context, begun, at, last, hits)?);
        }
        self.inside = keep;
        let looked_at = self.end().saturating_sub(KEEP as u64);
        self.gaps.retain(|&gap| gap >= looked_at);
        Ok(())
    }

    /// What the window has from `from` on up to the next gap, and whether there is one.
    fn piece(&self, from: usize) -> (&[u8], bool) {
        let begin = self.base + from as u64;
        match self.gaps.get(self.gaps.partition_point(|&gap| gap < begin)) {
            Some(&gap) => (&self.window[from..(gap - self.base) as usize], true),
            None => (&self.window[from..], false),
        }
    }

    /// Decompresses what the window has from `from` on; `None` once that is over.
    fn follow(
        &self,
        context: &Context<'_>,
        mut inside: Inside,
        from: usize,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<Option<Inside>, ScanError> {
        let count = hits.len();
        let (piece, ends) = self.piece(from);
        let last = last || ends;
        let goes_on = inside.feed(context, piece, self.base + from as u64, last, hits)?;
        if !goes_on || last {
            inside.layer.process(context, true, hits)?;
        }
        inside.layer.translate(&mut hits[count..], inside.step);
        Ok((goes_on && !last).then_some(inside))
    }

    /// Puts hits of this layer in terms of the stream above.
    fn translate(&self, hits: &mut [Hit], step: Step) {
        for hit in hits {
            hit.span = hit.span.as_ref().and_then(|span| self.map.span(span));
            hit.how.push(step);
        }
    }

    fn decode(&mut self, context: &Context<'_>, last: bool) -> Result<(), ScanError> {
        let rules = context.rules;
        let text = std::mem::take(&mut self.window);
        let unknown = self.unknown.take().map_or(text.len(), |at| (at.max(self.base) - self.base) as usize);
        let from = self.seen.saturating_sub(24).min(unknown);
        let base = self.base;
        let decided = self.base64.at + self.hex.at;
        if self.base64.active
            && let Some(below) = &mut self.below.base64
        {
            self.base64.go_on(&text, base, last, below);
        }
        if self.hex.active
            && let Some(below) = &mut self.below.hex
        {
            self.hex.go_on(&text, base, last, below);
        }
        if self.wide.active
            && let Some(below) = &mut self.below.wide
        {
            self.wide.go_on(&text, base, last, below);
        }
        if self.escapes.active
            && let Some(below) = &mut self.below.escapes
        {
            self.escapes.go_on(&text, base, last, &rules.wanted, below);
        }
        let mut outcome = Ok(());
        for at in (from..text.len()).step_by(BLOCK) {
            let classes = Classes::of(&text[at..text.len().min(at + BLOCK)], rules.min_base64);
            if classes.is_plain() {
                continue;
            }
            outcome = self.decode_block(context, &text, at, &classes, last);
            if outcome.is_err() {
                break;
            }
        }
        self.window = text;
        // Each byte of an encoded run is decoded in several ways, which costs about as much as looking at it did.
        let decoded = (self.base64.at + self.hex.at - decided) as usize;
        outcome.and(context.budget.spend(decoded))
    }

    fn decode_block(
        &mut self,
        context: &Context<'_>,
        text: &[u8],
        block: usize,
        classes: &Classes,
        last: bool,
    ) -> Result<(), ScanError> {
        let (rules, base) = (context.rules, self.base);
        let next = |at: u64| at.saturating_sub(base) as usize;
        let note = |layer: &mut Layer, at: usize| {
            let at = base + at as u64;
            layer.unknown = Some(layer.unknown.map_or(at, |other| other.min(at)));
        };
        for hit in (0..BLOCK / 8).map(|chunk| block + chunk * 8) {
            let chunk = (hit - block) / 8;
            if classes.base64 & 1 << chunk != 0 && next(self.base64.at) < hit + 8 && !self.base64.active {
                match self.base64.find(text, base, hit, rules.min_base64, last) {
                    Run::Begun => {
                        let depth = self.below()?;
                        let below = self.below.base64.get_or_insert_with(|| Layer::new_at(depth));
                        self.base64.go_on(text, base, last, below);
                    }
                    Run::Unknown(at) => note(self, at),
                    Run::None => {}
                }
            }
            if classes.hex & 1 << chunk != 0 && next(self.hex.at) < hit + 8 && !self.hex.active {
                match self.hex.find(text, base, hit, last) {
                    Run::Begun => {
                        let depth = self.below()?;
                        let below = self.below.hex.get_or_insert_with(|| Layer::new_at(depth));
                        self.hex.go_on(text, base, last, below);
                    }
                    Run::Unknown(at) => note(self, at),
                    Run::None => {}
                }
            }
        }
        let end = text.len().min(block + BLOCK);
        if classes.has_nul {
            let follows_text = |&hit: &usize| text[hit] == 0 && (b' '..=b'~').contains(&text[hit - 1]);
            for hit in (block.max(1)..end).filter(follows_text) {
                if next(self.wide.at) > hit || self.wide.active {
                    continue;
                }
                match self.wide.find(text, base, hit, last) {
                    Run::Begun => {
                        let depth = self.below()?;
                        let below =
                            self.below.wide.get_or_insert_with(|| Box::new(Layer { depth, ..Layer::default() }));
                        self.wide.go_on(text, base, last, below);
                    }
                    Run::Unknown(at) => note(self, at),
                    Run::None => {}
                }
            }
        }
        while classes.has_escape
            && !self.escapes.active
            && self.escapes.find(text, base, block, end, last, &rules.wanted)
        {
            let (depth, is_plain) = (self.below()?, self.is_plain);
            let below =
                self.below.escapes.get_or_insert_with(|| Box::new(Layer { depth, is_plain, ..Layer::default() }));
            self.escapes.go_on(text, base, last, &rules.wanted, below);
        }
        Ok(())
    }

    fn new_at<const N: usize>(depth: usize) -> Box<[Layer; N]> {
        Box::new(std::array::from_fn(|_| Layer { depth, ..Layer::default() }))
    }

    fn process_below(&mut self, context: &Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), ScanError> {
        for (layer, step) in self.below.all_mut() {
            let count = hits.len();
            layer.process(context, last, hits)?;
            layer.translate(&mut hits[count..], step);
        }
        Ok(())
    }

    /// Forgets what nothing can refer to any more.
    fn shorten(&mut self) {
        if self.window.len() < KEEP + SLACK {
            return;
        }
        let mut from = self.base + (self.window.len() - KEEP) as u64;
        let runners = self.runners.iter().map(|runner| runner.start.saturating_sub(KEEP as u64 / 2));
        let active = [
            self.base64.active.then_some(self.base64.at),
            self.hex.active.then_some(self.hex.at),
            self.wide.active.then_some(self.wide.at),
            self.escapes.active.then_some(self.escapes.at),
            self.unknown,
        ];
        from = runners.chain(active.into_iter().flatten()).chain([from]).min().unwrap_or(from).max(self.base);
        let gone = (from - self.base) as usize;
        self.window.drain(..gone);
        self.base += gone as u64;
        self.seen -= gone;
        self.map.forget(self.base);
    }
}

impl Below {
    fn all(&self) -> impl Iterator<Item = &Layer> {
        let base64 = self.base64.iter().flat_map(|layers| layers.iter());
        let hex = self.hex.iter().flat_map(|layers| layers.iter());
        base64.chain(hex).chain(self.escapes.as_deref()).chain(self.wide.as_deref())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = (&mut Layer, Step)> {
        let base64 = self.base64.iter_mut().flat_map(|layers| layers.iter_mut()).map(|layer| (layer, Step::Base64));
        let hex = self.hex.iter_mut().flat_map(|layers| layers.iter_mut()).map(|layer| (layer, Step::Hex));
        let escapes = self.escapes.as_deref_mut().map(|layer| (layer, Step::Escapes));
        base64.chain(hex).chain(escapes).chain(self.wide.as_deref_mut().map(|layer| (layer, Step::Wide)))
    }
}

impl Runner {
    fn advance(&mut self, rules: &Rules, text: &[u8], start: usize, last: bool) -> (Outcome, Option<String>) {
        match self.target {
            Target::Format(format) => {
                let shape = &rules.formats[format].0[self.shape];
                let rest = &text[start + self.progress.len..];
                let outcome = shape.advance(&mut self.progress, rest);
                let ends = outcome == Outcome::Open && last;
                let matches = ends && shape.is_match_at_end(&self.progress);
                (
                    if matches {
                        Outcome::Match
                    } else if ends {
                        Outcome::Dead
                    } else {
                        outcome
                    },
                    None,
                )
            }
            Target::PrivateKey => {
                let (outcome, len, id) = pem::key(&text[start..], last);
                self.progress.len = len;
                (outcome, Some(id.to_string()))
            }
            Target::Known(_) => {
                let value = &rules.anchors[self.shape].bytes;
                let rest = &text[start..];
                let agree = rest.iter().zip(value).all(|(a, b)| a == b);
                let outcome = match (agree, rest.len() >= value.len()) {
                    (true, true) => Outcome::Match,
                    (true, false) if !last => Outcome::Open,
                    _ => Outcome::Dead,
                };
                self.progress.len = value.len();
                (outcome, None)
            }
        }
    }
}

impl Inside {
    fn new(step: Step, layer: Box<Layer>, coding: Option<String>, context: &Context<'_>) -> Result<Inside, ScanError> {
        let unreadable = |_| ScanError::Unreadable { coding: step.name().to_string() };
        let inflater = Inflater::new(step).map_err(unreadable)?;
        let actual = if coding.as_deref() == Some("deflate") { Inflater::Either(Vec::new()) } else { inflater };
        let held = context.budget.hold(Inflater::memory(step))?;
        Ok(Inside { inflater: actual, step, layer, coding, under_way: false, _held: held })
    }

    /// Decompresses `bytes`, which are at `position`; whether more may follow.
    fn feed(
        &mut self,
        context: &Context<'_>,
        mut bytes: &[u8],
        mut position: u64,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<bool, ScanError> {
        let unreadable = |coding: &Option<String>| ScanError::Unreadable { coding: coding.clone().unwrap_or_default() };
        let mut piece = if self.layer.window.is_empty() && self.layer.base == 0 { FIRST_PIECE } else { PIECE };
        loop {
            if bytes.is_empty() && !self.under_way {
                break;
            }
            self.layer.map.opaque(self.layer.end(), position);
            let from = self.layer.window.len();
            self.layer.window.resize(from + piece, 0);
            let step = self.inflater.step(bytes, &mut self.layer.window[from..]);
            let Ok(step) = step else {
                self.layer.window.truncate(from);
                return if self.coding.is_some() { Err(unreadable(&self.coding)) } else { Ok(false) };
            };
            self.layer.window.truncate(from + step.wrote);
            context.budget.spend(step.read + step.wrote / INFLATED_PER_STEP + 16)?;
            self.layer.collapse(from);
            self.layer.process(context, false, hits)?;
            bytes = &bytes[step.read..];
            position += step.read as u64;
            self.under_way = true;
            if step.done {
                self.under_way = false;
                if self.coding.is_none() {
                    return Ok(false);
                }
                // Several members in a row are one body (RFC 1952, 2.2; RFC 8878, 3).
                self.inflater = Inflater::new(self.step).map_err(|_| unreadable(&self.coding))?;
            } else if bytes.is_empty() && step.wrote < piece || step.read == 0 && step.wrote == 0 {
                break;
            }
            piece = PIECE;
        }
        if last && self.under_way && self.coding.is_some() { Err(unreadable(&self.coding)) } else { Ok(true) }
    }
}

/// What a block of text may hold, eight bytes at a time.
struct Classes {
    /// Chunks of nothing but base64 and line breaks.
    base64: u8,
    /// Chunks of nothing but hexadecimal digits and what stands between them.
    hex: u8,
    has_nul: bool,
    has_escape: bool,
}

impl Classes {
    fn is_plain(&self) -> bool {
        self.base64 | self.hex == 0 && !self.has_nul && !self.has_escape
    }

    /// `min_base64`: a run shorter than 15 characters may fill no chunk of eight, but fills half of one.
    fn of(text: &[u8], min_base64: usize) -> Classes {
        match text.first_chunk::<BLOCK>() {
            Some(block) => Classes::of_block(block, min_base64 < 15),
            None => {
                let mut block = [1; BLOCK];
                block[..text.len()].copy_from_slice(text);
                Classes::of_block(&block, min_base64 < 15)
            }
        }
    }

    fn of_block(block: &[u8; BLOCK], halves: bool) -> Classes {
        let mut classes = Classes { base64: 0, hex: 0, has_nul: false, has_escape: false };
        let mut any = 0;
        for (chunk, bytes) in block.as_chunks::<8>().0.iter().enumerate() {
            // Loops and no closures: not every build inlines those.
            let (mut first, mut second) = (u8::MAX, u8::MAX);
            for place in 0..4 {
                let kinds = (KINDS[usize::from(bytes[place])], KINDS[usize::from(bytes[place + 4])]);
                (first, second, any) = (first & kinds.0, second & kinds.1, any | kinds.0 | kinds.1);
            }
            let whole = first & second;
            let base64 = if halves { first | second } else { whole };
            classes.base64 |= (base64 & BASE64) << chunk;
            classes.hex |= (whole & HEX) >> 1 << chunk;
        }
        (classes.has_nul, classes.has_escape) = (any & NUL != 0, any & ESCAPE != 0);
        classes
    }
}

const BASE64: u8 = 1;
const HEX: u8 = 2;
const NUL: u8 = 4;
const ESCAPE: u8 = 8;

/// What each byte may be part of.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let each = byte as u8;
        if each.is_ascii_alphanumeric() || matches!(each, b'+' | b'/' | b'-' | b'_' | b'\n' | b'\r' | b'\\') {
            kinds[byte] |= BASE64;
        }
        if each.is_ascii_hexdigit() || matches!(each, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'-' | b'x' | b'X') {
            kinds[byte] |= HEX;
        }
        if each == 0 {
            kinds[byte] |= NUL;
        }
        if matches!(each, b'%' | b'&' | b'\\') {
            kinds[byte] |= ESCAPE;
        }
        byte += 1;
    }
    kinds
};
