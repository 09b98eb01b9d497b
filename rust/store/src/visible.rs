//! What may an operator's screen show of what an agent wrote? Everything, with nothing able to deceive the eye.

use std::borrow::Cow;
use std::collections::BTreeSet;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// So many marks over one letter no language needs (Vietnamese and Hebrew get along with three); more of them cover the
/// lines around.
const MOST_MARKS: usize = 4;

/// Stands at the end of a line that a terminal may show in another order than it has.
const RIGHT_TO_LEFT: &str = " <right-to-left>";

/// `text` with every character that could hide, move or imitate others as `<U+XXXX>`.
///
/// Control characters (so also ANSI escapes), format characters (bidi overrides, zero-width, tags), separators and
/// blanks other than U+0020, default-ignorable code points, variation selectors, noncharacters, private-use characters,
/// and combining marks from the fifth in a row on. With `multiline`, newline and tab stay. Source: Unicode 16 categories
/// Cc, Cf, Co, Zl, Zp, Zs, noncharacters, and DerivedCoreProperties `Default_Ignorable_Code_Point`.
///
/// Two things are marked, as each of their characters is honest: a word whose letters are of scripts that no language
/// mixes (`<mixed scripts: Cyrillic, Latin>` after it; the rule is "highly restrictive" of UTS 39), and a line that has
/// letters written from right to left (`<right-to-left>` at its end).
pub fn visible(text: &str, multiline: bool) -> Cow<'_, str> {
    let plain = |c: char| matches!(c, ' '..='~') || (multiline && (c == '\n' || c == '\t'));
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    if multiline {
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            show_line(line, true, &mut shown);
            shown.push_str(end);
        }
    } else {
        show_line(text, false, &mut shown);
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// Which kinds of deception [`visible`] would show in `text`: `invisible` characters, `look-alike` words, `right-to-left`.
pub(crate) fn deceptions(text: &str) -> Vec<&'static str> {
    let Cow::Owned(shown) = visible(text, true) else { return Vec::new() };
    let more = |mark: &str| shown.matches(mark).count() > text.matches(mark).count();
    let kinds = [("<U+", "invisible"), ("<mixed scripts: ", "look-alike"), (RIGHT_TO_LEFT, "right-to-left")];
    kinds.into_iter().filter(|(mark, _)| more(mark)).map(|(_, kind)| kind).collect()
}

fn show_line(line: &str, tabs: bool, shown: &mut String) {
    if line.bytes().all(|b| matches!(b, b' '..=b'~')) {
        shown.push_str(line);
        return;
    }
    let (mut marks, mut turns) = (0, false);
    let mut scripts = BTreeSet::new();
    for c in line.chars() {
        if !in_word(c) {
            end_word(&mut scripts, shown);
        }
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if (hides(c) && !(tabs && c == '\t')) || marks > MOST_MARKS {
            shown.push_str(&format!("<U+{:04X}>", u32::from(c)));
            continue;
        }
        turns |= is_right_to_left(c);
        shown.push(c);
        if c.is_alphanumeric() {
            match c.script() {
                Script::Common | Script::Inherited | Script::Unknown => {}
                script => _ = scripts.insert(script.full_name()),
            }
        }
    }
    end_word(&mut scripts, shown);
    if turns && !line.ends_with(RIGHT_TO_LEFT) {
        shown.push_str(RIGHT_TO_LEFT);
    }
}

/// Host names, paths and addresses count as one word: `pаypal.com` is of two scripts whichever part has the foreign letter.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@') || is_mark(c)
}

fn end_word(scripts: &mut BTreeSet<&'static str>, shown: &mut String) {
    const MIXED: [&[&str]; 3] =
        [&["Latin", "Han", "Hiragana", "Katakana"], &["Latin", "Han", "Hangul"], &["Latin", "Han", "Bopomofo"]];
    if scripts.len() > 1 && !MIXED.iter().any(|usual| scripts.iter().all(|script| usual.contains(script))) {
        let names: Vec<&str> = scripts.iter().copied().collect();
        shown.push_str(&format!("<mixed scripts: {}>", names.join(", ")));
    }
    scripts.clear();
}

fn is_mark(c: char) -> bool {
    !c.is_ascii() && matches!(c.general_category(), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// Whether `c` is in a block whose letters run from right to left (the defaults R and AL of DerivedBidiClass.txt).
fn is_right_to_left(c: char) -> bool {
    matches!(u32::from(c),
        0x0590..=0x08FF | 0xFB1D..=0xFDCF | 0xFDF0..=0xFDFF | 0xFE70..=0xFEFE
        | 0x10800..=0x10CFF | 0x10D40..=0x10EBF | 0x10F00..=0x10FFF | 0x1E800..=0x1EFFF)
}

fn hides(c: char) -> bool {
    matches!(u32::from(c),
        0x00..=0x1F | 0x7F..=0x9F              // Cc
        | 0xA0 | 0xAD                          // no-break space, soft hyphen
        | 0x034F | 0x061C                      // grapheme joiner, Arabic letter mark
        | 0x0600..=0x0605 | 0x06DD | 0x070F | 0x0890..=0x0891 | 0x08E2
        | 0x115F..=0x1160 | 0x3164 | 0xFFA0    // Hangul fillers: blank letters
        | 0x1680 | 0x17B4..=0x17B5 | 0x180B..=0x180F
        | 0x2000..=0x200F                      // blanks, zero-width, direction marks
        | 0x2028..=0x202F | 0x205F..=0x206F    // separators, bidi embeddings, overrides, isolates, invisible operators
        | 0x2800                               // blank braille
        | 0x3000 | 0xE000..=0xF8FF             // ideographic space, private use
        | 0xFDD0..=0xFDEF                      // noncharacters
        | 0xFE00..=0xFE0F | 0xFEFF | 0xFFF0..=0xFFFB
        | 0x110BD | 0x110CD | 0x13430..=0x1345F | 0x16FE4 | 0x1BCA0..=0x1BCA3 | 0x1D159 | 0x1D173..=0x1D17A
        | 0xE0000..=0xE0FFF | 0xF0000..=0x10FFFF // tags, more variation selectors, private use
    ) || u32::from(c) & 0xFFFE == 0xFFFE // the last two of each plane: noncharacters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_overrides_and_blanks_are_spelled_out() {
        assert_eq!(visible("\x1b[31mred", true), "<U+001B>[31mred");
        assert_eq!(visible("a\u{202e}b\u{200b}c\u{2066}", true), "a<U+202E>b<U+200B>c<U+2066>");
        assert_eq!(visible("\u{3164}\u{2800}\u{a0}\u{e0041}", true), "<U+3164><U+2800><U+00A0><U+E0041>");
        assert_eq!(visible("a\r\nb\tc", true), "a<U+000D>\nb\tc");
        assert_eq!(visible("a\nb", false), "a<U+000A>b");
    }

    #[test]
    fn noncharacters_and_floods_of_marks_are_spelled_out() {
        assert_eq!(visible("a\u{fdd0}\u{ffff}\u{1fffe}", true), "a<U+FDD0><U+FFFF><U+1FFFE>");
        let flood = format!("a{}b", "\u{301}".repeat(6));
        assert_eq!(visible(&flood, true), format!("a{}<U+0301><U+0301>b", "\u{301}".repeat(4)));
        let flood = format!("a{}", "\u{489}".repeat(5));
        assert_eq!(visible(&flood, false), format!("a{}<U+0489>", "\u{489}".repeat(4)));
    }

    #[test]
    fn words_of_scripts_that_no_language_mixes_are_marked() {
        assert_eq!(visible("p\u{430}ypal.com ok", true), "p\u{430}ypal.com<mixed scripts: Cyrillic, Latin> ok");
        assert_eq!(visible("\u{430}\u{440}\u{440}\u{4cf}\u{435}.com", false).matches("mixed").count(), 1);
        assert_eq!(
            visible("g\u{3bf}\u{3bf}gle\nplain", true),
            "g\u{3bf}\u{3bf}gle<mixed scripts: Greek, Latin>\nplain"
        );
        for honest in ["Привет, world", "東京Towerへ", "한국어test", "x² ≤ µm", "Ελλάδα και France"]
        {
            assert_eq!(visible(honest, true), honest);
        }
    }

    #[test]
    fn each_kind_of_deception_is_named() {
        assert_eq!(deceptions("plain\tü <U+202E>\n"), Vec::<&str>::new());
        assert_eq!(deceptions("a\u{202e}b"), ["invisible"]);
        assert_eq!(deceptions("p\u{430}ypal.com"), ["look-alike"]);
        assert_eq!(deceptions("\u{5d0}"), ["right-to-left"]);
        assert_eq!(deceptions(&format!("<U+0301>a{}", "\u{301}".repeat(5))), ["invisible"]);
    }

    #[test]
    fn lines_that_run_from_right_to_left_are_marked_once() {
        assert_eq!(visible("+\u{5d0}\u{5d1}\nab\n", true), "+\u{5d0}\u{5d1} <right-to-left>\nab\n");
        let once = visible("\u{627}\u{644}", false).into_owned();
        assert_eq!(visible(&once, false), once);
    }

    #[test]
    fn honest_text_is_returned_as_it_is() {
        assert!(matches!(visible("Straße, 東京, naïve 🍾\n", true), Cow::Borrowed(_)));
    }
}
