//! What may an operator's screen show of what an agent wrote? Everything, with nothing able to deceive the eye.

use std::borrow::Cow;

/// `text` with every character that could hide, move or imitate others as `<U+XXXX>`.
///
/// Control characters (so also ANSI escapes), format characters (bidi overrides, zero-width, tags), separators and
/// blanks other than U+0020, default-ignorable code points, variation selectors and private-use characters. With
/// `multiline`, newline and tab stay. Source: Unicode 16 categories Cc, Cf, Co, Zl, Zp, Zs and DerivedCoreProperties
/// `Default_Ignorable_Code_Point`.
pub fn visible(text: &str, multiline: bool) -> Cow<'_, str> {
    let keep = |c: char| !hides(c) || (multiline && (c == '\n' || c == '\t'));
    if text.chars().all(keep) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if keep(c) {
            shown.push(c);
        } else {
            shown.push_str(&format!("<U+{:04X}>", u32::from(c)));
        }
    }
    Cow::Owned(shown)
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
        | 0xFE00..=0xFE0F | 0xFEFF | 0xFFF0..=0xFFFB
        | 0x110BD | 0x110CD | 0x13430..=0x1345F | 0x16FE4 | 0x1BCA0..=0x1BCA3 | 0x1D159 | 0x1D173..=0x1D17A
        | 0xE0000..=0xE0FFF | 0xF0000..=0x10FFFF // tags, more variation selectors, private use
    )
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
    fn honest_text_is_returned_as_it_is() {
        assert!(matches!(visible("Straße, 東京, naïve 🍾\n", true), Cow::Borrowed(_)));
    }
}
