//! Each format in each encoding at each place, cut anywhere.

use bot_bottle_scan::{Budget, Detectors, Finding, Kind, Place, ScanError, Scanner, Step};

use crate::made::{
    KNOWN, Noise, b64, b64url, brotli, deflate, detectors, formats, github_token, gzip, scan, scan_cut, secrets, zip,
    zlib, zstd,
};

type Wrap = fn(&[u8]) -> Vec<u8>;

fn each(data: &[u8], spell: impl Fn(u8) -> String) -> Vec<u8> {
    data.iter().map(|&byte| spell(byte)).collect::<String>().into_bytes()
}

fn in_lines(text: &str, width: usize, end: &str) -> Vec<u8> {
    let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(end).into_bytes()
}

fn wide(data: &[u8], spell: fn(u16) -> [u8; 2]) -> Vec<u8> {
    String::from_utf8_lossy(data).encode_utf16().flat_map(spell).collect()
}

/// Some text around it, so that compression has something to do.
fn words(data: &[u8]) -> Vec<u8> {
    [b"some words and more words, then some words: ", data, b" and more words\n"].concat()
}

/// Encodings whose bytes can be masked where they stand.
const SPELLINGS: &[(&str, Wrap)] = &[
    ("as it is", |data| data.to_vec()),
    ("base64", |data| b64(data).into_bytes()),
    ("base64, one byte in", |data| b64(&[b".", data, b"."].concat()).into_bytes()),
    ("base64, two bytes in", |data| b64(&[b"..", data, b"."].concat()).into_bytes()),
    ("base64 without padding", |data| b64(data).trim_end_matches('=').into()),
    ("base64, URL alphabet", |data| b64url(&[b"?>?>?", data, b"?>~"].concat()).into_bytes()),
    ("base64 after letters", |data| format!("x{}", b64(data)).into_bytes()),
    ("base64 after a path", |data| format!("/up/{}", b64url(data)).into_bytes()),
    ("base64 in lines", |data| in_lines(&b64(&words(data)), 76, "\n")),
    ("base64 in lines of 64, CRLF", |data| in_lines(&b64(&words(data)), 64, "\r\n")),
    ("base64 in short lines", |data| in_lines(&b64(&words(data)), 20, "\n")),
    ("base64 in lines, in JSON", |data| in_lines(&b64(&words(data)), 60, "\\n")),
    ("base64 in lines, in JSON in JSON", |data| in_lines(&b64(&words(data)), 60, "\\\\n")),
    ("base64 in lines, indented", |data| in_lines(&b64(&words(data)), 70, "\r\n    ")),
    ("base64 as a list of strings", |data| in_lines(&b64(&words(data)), 70, "\",\n    \"")),
    ("base64 with JSON slashes", |data| b64(&[b"???", data, b"???"].concat()).replace('/', "\\/").into_bytes()),
    ("base64 in base64", |data| b64(b64(data).as_bytes()).into_bytes()),
    ("base64 thrice", |data| b64(b64(b64(data).as_bytes()).as_bytes()).into_bytes()),
    ("base64 in a URL", |data| {
        b64(&[b"~~~", data, b"~~~"].concat()).replace('+', "%2B").replace('/', "%2f").into_bytes()
    }),
    ("hex", |data| each(data, |byte| format!("{byte:02x}"))),
    ("HEX", |data| each(data, |byte| format!("{byte:02X}"))),
    ("hex with 0x", |data| [b"0x".to_vec(), each(data, |byte| format!("{byte:02x}"))].concat()),
    ("hex after a digit", |data| [b"a".to_vec(), each(data, |byte| format!("{byte:02x}"))].concat()),
    ("hex with colons", |data| each(data, |byte| format!("{byte:02x}:"))),
    ("hex with spaces", |data| each(data, |byte| format!("{byte:02x} "))),
    ("hex in pairs", |data| in_lines(&String::from_utf8(each(data, |byte| format!("{byte:02x}"))).unwrap(), 4, " ")),
    ("hex in lines", |data| in_lines(&String::from_utf8(each(data, |byte| format!("{byte:02x}"))).unwrap(), 40, "\n")),
    ("hex as C array", |data| each(data, |byte| format!("0x{byte:02x}, "))),
    ("hex in base64", |data| b64(&each(data, |byte| format!("{byte:02x}"))).into_bytes()),
    ("percent", |data| each(data, |byte| format!("%{byte:02X}"))),
    ("percent, small", |data| each(data, |byte| format!("%{byte:02x}"))),
    ("percent, twice", |data| each(data, |byte| format!("%25{byte:02X}"))),
    ("percent, thrice", |data| each(data, |byte| format!("%2525{byte:02x}"))),
    ("percent, every other letter", |data| {
        each(data, |byte| if byte % 2 == 0 { format!("%{byte:02X}") } else { char::from(byte).to_string() })
    }),
    ("percent u", |data| each(data, |byte| format!("%u{byte:04x}"))),
    ("JSON", |data| each(data, |byte| format!("\\u{byte:04x}"))),
    ("JSON, BIG", |data| each(data, |byte| format!("\\u{byte:04X}"))),
    ("JSON in JSON", |data| each(data, |byte| format!("\\\\u{byte:04x}"))),
    ("JavaScript", |data| each(data, |byte| format!("\\u{{{byte:x}}}"))),
    ("C", |data| each(data, |byte| format!("\\x{byte:02x}"))),
    ("C, BIG", |data| each(data, |byte| format!("\\x{byte:02X}"))),
    ("C, octal", |data| each(data, |byte| format!("\\{byte:03o}"))),
    ("Python", |data| each(data, |byte| format!("\\U{byte:08x}"))),
    ("Perl", |data| each(data, |byte| format!("\\x{{{byte:x}}}"))),
    ("HTML", |data| each(data, |byte| format!("&#{byte};"))),
    ("HTML with zeros", |data| each(data, |byte| format!("&#{byte:07};"))),
    ("HTML, hex", |data| each(data, |byte| format!("&#x{byte:x};"))),
    ("HTML, HEX", |data| each(data, |byte| format!("&#X{byte:04X};"))),
    ("HTML without semicolons", |data| each(data, |byte| format!("&#{byte}"))),
    ("UTF-16", |data| wide(data, u16::to_le_bytes)),
    ("UTF-16, big end first", |data| wide(data, u16::to_be_bytes)),
    ("UTF-32", |data| data.iter().flat_map(|&byte| [byte, 0, 0, 0]).collect()),
    ("UTF-16 in base64", |data| b64(&wide(data, u16::to_le_bytes)).into_bytes()),
    ("base64 in UTF-16", |data| wide(b64(data).as_bytes(), u16::to_le_bytes)),
    ("percent in base64", |data| b64(&each(data, |byte| format!("%{byte:02X}"))).into_bytes()),
];

/// Encodings that compress.
const COMPRESSIONS: &[(&str, Wrap)] = &[
    ("gzip", |data| gzip(&words(data))),
    ("gzip in gzip", |data| gzip(&gzip(&words(data)))),
    ("gzip in base64", |data| b64(&gzip(&words(data))).into_bytes()),
    ("gzip in base64 in lines", |data| in_lines(&b64(&gzip(&words(data))), 76, "\n")),
    ("gzip in base64 for URLs", |data| b64url(&gzip(&words(data))).into_bytes()),
    ("gzip in base64 twice", |data| b64(b64(&gzip(&words(data))).as_bytes()).into_bytes()),
    ("gzip in hex", |data| each(&gzip(&words(data)), |byte| format!("{byte:02x}"))),
    ("gzip in percent", |data| each(&gzip(&words(data)), |byte| format!("%{byte:02x}"))),
    ("zlib", |data| zlib(&words(data), 15)),
    ("zlib, window 8", |data| zlib(&words(data), 8)),
    ("zlib, window 11, in base64", |data| b64(&zlib(&words(data), 11)).into_bytes()),
    ("zlib, window 13, in base64", |data| b64(&zlib(&words(data), 13)).into_bytes()),
    ("deflate", |data| deflate(&words(data))),
    ("deflate in base64", |data| b64(&deflate(&words(data))).into_bytes()),
    ("deflate in base64 in percent", |data| {
        b64(&deflate(&words(data))).replace('+', "%2B").replace('/', "%2F").into_bytes()
    }),
    ("deflate in hex", |data| each(&deflate(&words(data)), |byte| format!("{byte:02x}"))),
    ("zstd", |data| zstd(&words(data))),
    ("zstd in base64", |data| b64(&zstd(&words(data))).into_bytes()),
    ("zip", |data| zip(&words(data))),
    ("zip in base64", |data| b64(&zip(&words(data))).into_bytes()),
    ("base64 in gzip", |data| gzip(&words(b64(data).as_bytes()))),
    ("JSON in gzip in base64", |data| b64(&gzip(&each(&words(data), |byte| format!("\\u{byte:04x}")))).into_bytes()),
];

fn all() -> impl Iterator<Item = &'static (&'static str, Wrap)> {
    SPELLINGS.iter().chain(COMPRESSIONS)
}

/// What a place looks like around it.
const PLACES: &[(&str, &str, &str)] = &[
    ("URL query", "q=1&key=", "&more=words"),
    ("URL path", "/v1/items/", "/more"),
    ("header authorization", "Bearer ", ""),
    ("header cookie", "a=b; session=", "; c=d"),
    ("body", "{\"note\": \"some words\", \"data\": \"", "\", \"more\": \"words\"}"),
    ("body", "", ""),
    ("body", "data: {\"delta\": \"some code\\n", "\\n\"}\n\n"),
    ("body", "--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n", "\r\n--x--\r\n"),
];

/// Raw deflate has no mark of its own: it is found where something begins. A letter before the NUL with which big-endian
/// text begins is taken for one of that text.
fn is_markless(name: &str, before: &str) -> bool {
    name == "deflate" && !before.is_empty() || name.contains("big end") && before.ends_with('n')
}

#[test]
fn every_format_is_found_in_every_encoding_at_every_place() {
    let detectors = detectors();
    let mut missed = Vec::new();
    let mut tried = 0;
    for (id, secret) in formats() {
        for (name, wrap) in all() {
            for (place, before, after) in PLACES {
                if is_markless(name, before) {
                    continue;
                }
                let wrapped = wrap(secret.as_bytes());
                let text = [before.as_bytes(), &wrapped, after.as_bytes()].concat();
                let found = scan_cut(&detectors, &text, &[], Place::new(*place, "api.example.test"));
                tried += 1;
                if !found.as_ref().is_ok_and(|found| found.iter().any(|each| each.detector == id)) {
                    missed.push(format!("{id} as {name} in {place} after {before:?}: {found:?}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{} of {tried} missed:\n{}", missed.len(), missed[..missed.len().min(40)].join("\n"));
}

#[test]
fn a_known_secret_is_found_in_every_encoding() {
    for value in [KNOWN, b"8letters", b"pa\"ss\\wo rd'<&>\xc3\xa9!"] {
        let detectors = Detectors::new(false, vec![("a password".to_string(), value.to_vec())]);
        for (name, wrap) in all() {
            let text = [b"{\"data\": \"", wrap(value).as_slice(), b"\", \"more\": 1}"].concat();
            if is_markless(name, "{") || name.contains("UTF-32") && !value.is_ascii() {
                continue;
            }
            let json_made =
                ["JavaScript", "Perl", "Python"].iter().any(|each| name.contains(each)) || name.contains("JSON");
            if !value.is_ascii()
                && (json_made
                    || name.contains("every other")
                    || name.contains("HTML")
                    || name == &"percent u"
                    || name.contains("UTF-16"))
            {
                continue; // these spell characters, not bytes, and are made byte by byte here
            }
            let found = scan_cut(&detectors, &text, &[], Place::body("x")).unwrap();
            assert!(
                found.iter().any(|each| each.secret == value && each.kind == Kind::KnownSecret),
                "{value:?} as {name}"
            );
        }
    }
}

#[test]
fn a_known_secret_is_found_as_json_and_html_writers_spell_it() {
    let value = "pa\"ss\\wo\nrd'<&>é!";
    let detectors = Detectors::new(false, vec![("a password".to_string(), value.as_bytes().to_vec())]);
    for spelled in [
        "pa\\\"ss\\\\wo\\nrd'<&>é!".to_string(),
        "pa\\u0022ss\\u005cwo\\u000ard\\u0027\\u003c\\u0026\\u003e\\u00e9!".to_string(),
        "pa&quot;ss\\wo&#10;rd&apos;&lt;&amp;&gt;&#233;!".to_string(),
        "pa%22ss%5Cwo%0Ard%27%3C%26%3E%C3%A9!".to_string(),
    ] {
        let found = scan_cut(&detectors, format!("x \"{spelled}\" y").as_bytes(), &[], Place::body("x")).unwrap();
        assert_eq!(secrets(&found), [value], "{spelled}");
    }
    let wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(secrets(&scan_cut(&detectors, &wide, &[], Place::body("x")).unwrap()), [value]);
}

/// The secret, and how many bytes had been cleared when it was found.
fn streamed(detectors: &Detectors, data: &[u8], cuts: &[usize]) -> (Vec<Finding>, u64) {
    let mut scanner = Scanner::new(detectors, &Budget::for_request()).at(Place::body("x"));
    let (mut from, mut cleared) = (0, 0);
    for &cut in cuts.iter().chain([&data.len()]) {
        let found = scanner.feed(&data[from..cut]).unwrap();
        if !found.is_empty() {
            return (found, cleared);
        }
        cleared = scanner.clear();
        from = cut;
    }
    (scanner.finish().unwrap(), cleared)
}

#[test]
fn a_secret_cut_at_any_byte_is_found_before_most_of_it_has_passed() {
    let detectors = detectors();
    for secret in [github_token().as_slice(), KNOWN] {
        for (name, wrap) in all().filter(|(name, _)| *name != "deflate") {
            let text = [b"{\"data\": \"", wrap(secret).as_slice(), b"\", \"and\": \"more\"}"].concat();
            for cut in 0..=text.len() {
                let (found, cleared) = streamed(&detectors, &text, &[cut]);
                assert!(found.iter().any(|each| each.secret == secret), "{name} cut at {cut}: {found:?}");
                if let Some(span) = found.iter().find(|each| each.secret == secret).and_then(|each| each.span.clone()) {
                    assert!(
                        cleared <= span.start + 64,
                        "{name} cut at {cut}: {} bytes had passed",
                        cleared - span.start
                    );
                }
            }
        }
    }
}

#[test]
fn pieces_of_any_size_find_the_same_as_the_whole() {
    let detectors = detectors();
    let mut noise = Noise(11);
    let parts: Vec<Vec<u8>> =
        all().filter(|(name, _)| *name != "deflate").map(|(_, wrap)| wrap(&github_token())).collect();
    let text = parts.join(&b"\" some \\\"words\\\" \n"[..]);
    let sorted = |found: Vec<Finding>| {
        let mut all: Vec<_> = found.into_iter().map(|each| (each.detector, each.secret, each.span, each.how)).collect();
        all.sort_by_key(|(detector, secret, span, _)| {
            (detector.clone(), secret.clone(), span.as_ref().map(|span| span.start))
        });
        all.into_iter().map(|(detector, secret, span, _)| (detector, secret, span)).collect::<Vec<_>>()
    };
    let whole = sorted(scan_cut(&detectors, &text, &[], Place::body("x")).unwrap());
    for size in [1, 2, 3, 7, 64, 1000] {
        let cuts: Vec<usize> = (size..text.len()).step_by(size).collect();
        assert_eq!(sorted(scan_cut(&detectors, &text, &cuts, Place::body("x")).unwrap()), whole, "pieces of {size}");
    }
    for _ in 0..20 {
        let mut cuts: Vec<usize> = (0..8).map(|_| noise.below(text.len())).collect();
        cuts.sort_unstable();
        assert_eq!(sorted(scan_cut(&detectors, &text, &cuts, Place::body("x")).unwrap()), whole, "{cuts:?}");
    }
}

#[test]
fn overwriting_its_span_takes_a_secret_out_and_nothing_else() {
    for (name, wrap) in SPELLINGS {
        for secret in [github_token().as_slice(), KNOWN] {
            let (head, tail) = (b"{\"data\": \"".as_slice(), b"\", \"and\": \"more\"}".as_slice());
            let mut text = [head, &wrap(secret), tail].concat();
            let found = scan(&text);
            assert!(!found.is_empty(), "{name}");
            for each in &found {
                let span = each.span.clone().unwrap_or_else(|| panic!("{name} has no span"));
                assert!(
                    span.start >= head.len() as u64 && span.end <= (text.len() - tail.len()) as u64,
                    "{name}: {span:?}"
                );
                text[span.start as usize..span.end as usize].fill(b'*');
            }
            assert_eq!(scan(&text), [], "{name}");
        }
    }
}

#[test]
fn compressed_secrets_have_no_span_and_say_how_they_were_hidden() {
    for (name, wrap) in COMPRESSIONS {
        let found = scan(&wrap(&github_token()));
        assert!(found.iter().any(|each| each.span.is_none()), "{name}");
    }
    let found = scan(b64(&gzip(&words(&github_token()))).as_bytes());
    assert_eq!(found[0].how, [Step::Base64, Step::Gzip]);
}

#[test]
fn content_codings_are_undone_in_turn_and_members_in_a_row() {
    let detectors = detectors();
    let run = |body: &[u8], codings: &[&str], piece: usize| -> Result<Vec<Finding>, ScanError> {
        let mut scanner = Scanner::new(&detectors, &Budget::for_request()).encoded(codings)?;
        let mut found = Vec::new();
        for part in body.chunks(piece) {
            found.extend(scanner.feed(part)?);
        }
        found.extend(scanner.finish()?);
        Ok(found)
    };
    let plain = [Noise(3).bytes(5000), words(&github_token())].concat();
    for piece in [1, 7, 100, 100_000] {
        for (codings, body) in [
            (&["gzip"][..], gzip(&plain)),
            (&["x-gzip"], gzip(&plain)),
            (&["deflate"], zlib(&plain, 15)),
            (&["deflate"], deflate(&plain)),
            (&["br"], brotli(&plain)),
            (&["zstd"], zstd(&plain)),
            (&["gzip", "br"], brotli(&gzip(&plain))),
            (&["identity", "zstd"], [zstd(b"first"), zstd(&plain)].concat()),
            (&["gzip"], [gzip(b"first"), gzip(&plain)].concat()),
        ] {
            let found = run(&body, codings, piece).unwrap();
            assert!(found.iter().any(|each| each.secret == github_token()), "{codings:?} in pieces of {piece}");
        }
    }
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let compressed = match coding {
            "gzip" => gzip(&plain),
            "deflate" => zlib(&plain, 15),
            "br" => brotli(&plain),
            _ => zstd(&plain),
        };
        for body in
            [b"plainly not compressed, whatever the header says".as_slice(), &compressed[..compressed.len() - 4]]
        {
            assert!(matches!(run(body, &[coding], 1000), Err(ScanError::Unreadable { .. })), "{coding}");
        }
    }
    assert!(matches!(run(b"x", &["compress"], 1), Err(ScanError::UnknownCoding { .. })));
}

#[test]
fn a_used_up_budget_is_an_error_and_stays_one() {
    let bomb = gzip(&b"%41\\x42&#67; eyJ0abcdefghijklmnopqrstuvwxyz 6162636465666768696a6b6c6d6e6f70 ".repeat(100_000));
    let mut scanner = Scanner::new(&detectors(), &Budget::new(4 << 20, 48, 1 << 20));
    assert_eq!(scanner.feed(&bomb), Err(ScanError::OverBudget { what: "work" }));
    assert!(scanner.feed(b"words").is_err() && scanner.finish().is_err());
    assert_eq!(scanner.clear(), 0);
    let nested = (0..20).fold(words(b"x"), |data, _| gzip(&data));
    assert_eq!(scan_cut(&detectors(), &nested, &[], Place::body("x")), Err(ScanError::OverBudget { what: "nesting" }));
}

#[test]
fn places_of_a_request_share_one_budget() {
    let budget = Budget::new(100_000, 0, 1 << 20);
    let feed = |size: usize| Scanner::new(&detectors(), &budget).feed(&vec![b' '; size]);
    assert_eq!(feed(60_000), Ok(vec![]));
    assert!(feed(60_000).is_err());
}

#[test]
fn only_what_is_asked_for_is_looked_for() {
    let text = [github_token().as_slice(), b" ", KNOWN].concat();
    let known = vec![("a password".to_string(), KNOWN.to_vec())];
    let only =
        |patterns, known| secrets(&scan_cut(&Detectors::new(patterns, known), &text, &[], Place::body("x")).unwrap());
    assert_eq!(only(false, known).as_slice(), [String::from_utf8_lossy(KNOWN)]);
    assert_eq!(only(true, vec![]).as_slice(), [String::from_utf8_lossy(&github_token())]);
    assert!(Detectors::new(false, vec![("short".to_string(), b"hunter2".to_vec())]).is_empty());
}

#[test]
fn a_finding_does_not_show_its_secret() {
    let found = scan(&github_token());
    assert!(!format!("{found:?}").contains(std::str::from_utf8(&github_token()[8..16]).unwrap()));
}
