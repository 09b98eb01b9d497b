//! Is what has the shape of a secret one?
//!
//! Three things are not: placeholders, examples that vendors publish in their documentation, and what a signed URL
//! carries in the open. Each rule here is as narrow as it can be said; what no rule names stays a secret.

use crate::Place;
use crate::base64;
use crate::escapes;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Secret,
    NotSecret,
    /// What follows decides.
    More,
}

/// Examples in documentation, in pieces so that no other scanner takes this file for a leak.
///
/// Stripe API reference; Telegram bot API; the storage and Cosmos DB emulators of Azure; Discord's webhook reference;
/// the key that YouTube's own web page sends; GitHub's pages on authorizing apps; SendGrid's API reference; Slack's
/// oauth.access.
const PUBLISHED: &[&[&str]] = &[
    &["sk_", "test_", "4eC39HqLyjWDarjtT1zdp7dc"],
    &["sk_", "test_", "BQokikJOvBiI2HlWgH4olfQ2"],
    &["sk_", "test_", "tR3PYbcVNZZ796tH88S4VQ2u"],
    &["sk_", "test_", "26PHem9AhJZvU623DfE1x4sd"],
    &["110201543", ":AA", "HdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"],
    &["AccountKey=", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw", "=="],
    &["AccountKey=", "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw", "=="],
    &["/api/webhooks/", "223704706495545344/", "3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372"],
    &["AIza", "SyAO_FJ2SlqU8Q4STEHLGCilw_Y9_11qcW8"],
    &["ghp_", "16C7e42F292c6912", "E7710c838347Ae178B4a"],
    &["gho_", "16C7e42F292c6912", "E7710c838347Ae178B4a"],
    &["ghu_", "16C7e42F292c6912", "E7710c838347Ae178B4a"],
    &["ghs_", "16C7e42F292c6912", "E7710c838347Ae178B4a"],
    &["ghr_", "1B4a2e77838347a7E420ce178F2E7c6912E16924", "6c34E1ccbF66C46812d16D5B1A9Dc86A1498"],
    &["SG.", "ngeVfQFYQlKU0ufo8x5d1A", ".TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"],
    &["xoxb-", "17653672481-19874698323-", "pdFZKVeTuE8sk7oOcHrzqqgy"],
    &["xoxp-", "23984754863-", "2348975623103"],
];

/// What a JSON web token says that is public: Supabase's anonymous keys stand in every page that uses one, its demo keys
/// in every installation; jwt.io and RFC 7515 print the others.
const PUBLIC_CLAIMS: &[&[&str]] = &[
    &["\"iss\":\"supabase\"", "\"role\":\"anon\""],
    &["\"iss\":\"supabase-demo\""],
    &["\"sub\":\"1234567890\"", "\"name\":\"JohnDoe\""],
    &["\"iss\":\"joe\"", "\"http://example.com/is_root\":true"],
];

/// A signed URL: hosts (and those below), the parameter, and what its value has to be.
struct Signed {
    hosts: &'static [&'static str],
    parameter: &'static str,
    shape: SignedShape,
}

enum SignedShape {
    /// A JSON web token of this issuer or for this host.
    Token { issuer: &'static str },
    /// `<key id>/<date>/<region>/<service>/aws4_request` (AWS Signature Version 4).
    CredentialScope,
    /// The key id and nothing else (AWS Signature Version 2).
    KeyId,
}

const S3: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "r2.cloudflarestorage.com",
    "digitaloceanspaces.com",
    "backblazeb2.com",
    "wasabisys.com",
    "githubusercontent.com",
    "hf.co",
    "huggingface.co",
    "cloudfront.net",
    "docker.com",
    "storage.googleapis.com",
];

const SIGNED: &[Signed] = &[
    Signed { hosts: &["githubusercontent.com"], parameter: "jwt", shape: SignedShape::Token { issuer: "github.com" } },
    Signed { hosts: S3, parameter: "X-Amz-Credential", shape: SignedShape::CredentialScope },
    Signed { hosts: S3, parameter: "AWSAccessKeyId", shape: SignedShape::KeyId },
];

const MIN_DISTINCT: usize = 8; // different characters; xxxxxxxx and 12341234 are placeholders
const MAX_SAME: usize = 8; // of one character in a row; not of A, which is how base64 spells zeros
const NOISE: usize = 128; // characters before a token that make it a piece of something longer
const NOISE_DISTINCT: usize = 40;
const WORDS: &[&str] = &["example", "placeholder", "redacted", "changeme", "yourtoken", "yourapikey", "your_", "your-"];
const MAX_SCOPE: usize = 96;
const MAX_URL: usize = 2048;
/// Of [`MAX_SCOPE`] characters, each spelled in percent twice.
const MAX_SPELLED: usize = 5 * MAX_SCOPE;
/// As it is, and with one, two and three kinds of escapes undone.
const READINGS: usize = 4;

/// What has been matched: `text[start..end]`, with its first `prefix` bytes fixed by the format.
pub(crate) struct Candidate<'a> {
    pub id: &'static str,
    pub text: &'a [u8],
    pub start: usize,
    pub end: usize,
    pub prefix: usize,
    /// Whether the text ends here.
    pub last: bool,
    /// Whether the text is the place itself, at most with its escapes undone.
    pub is_plain: bool,
    pub place: &'a Place,
}

impl Candidate<'_> {
    pub(crate) fn verdict(&self) -> Verdict {
        let token = &self.text[self.start..self.end];
        if is_placeholder(token, self.prefix) || is_published(token) || self.is_noise() {
            return Verdict::NotSecret;
        }
        let claims = if self.id == "JSON web token" { claims(token) } else { String::new() };
        if PUBLIC_CLAIMS.iter().any(|all| all.iter().all(|claim| claims.contains(claim))) {
            return Verdict::NotSecret;
        }
        self.signed_url(&claims)
    }

    /// A short fixed part turns up by chance in a long run of base64.
    fn is_noise(&self) -> bool {
        let Some(before) = self.start.checked_sub(NOISE).map(|from| &self.text[from..self.start]) else { return false };
        let is_run = before.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte));
        is_run && distinct(before) >= NOISE_DISTINCT
    }

    /// In the text as it is, and as its escapes spell it: Go writes `&` in JSON as `\u0026`, and a URL in the query of
    /// another is in percent.
    fn signed_url(&self, claims: &str) -> Verdict {
        let from = self.start.saturating_sub(MAX_URL);
        let after = self.text.len().min(self.end + MAX_SPELLED);
        let (mut before, mut rest) = (self.text[from..self.start].to_vec(), self.text[self.end..after].to_vec());
        for _ in 0..READINGS {
            let verdict = self.signed(claims, &before, &rest);
            if verdict != Verdict::Secret || self.is_query() {
                return verdict;
            }
            let spelled = escapes::read(&before);
            if spelled == before {
                break;
            }
            (before, rest) = (spelled, escapes::read(&rest));
        }
        Verdict::Secret
    }

    fn signed(&self, claims: &str, before: &[u8], rest: &[u8]) -> Verdict {
        for rule in SIGNED {
            let is_kind = match rule.shape {
                SignedShape::Token { .. } => self.id == "JSON web token",
                _ => self.id == "AWS access key id",
            };
            if !is_kind || !self.is_value_of(before, rule.parameter) || !self.goes_to(before, rule.hosts) {
                continue;
            }
            match rule.shape {
                SignedShape::Token { issuer } => {
                    let says = |name: &str, value: &str| claims.contains(&format!("\"{name}\":\"{value}\""));
                    if says("iss", issuer) || rule.hosts.iter().any(|_| says("aud", &self.place.host)) {
                        return Verdict::NotSecret;
                    }
                }
                SignedShape::CredentialScope => return self.scope(rest),
                SignedShape::KeyId => match rest.first() {
                    None if !self.last => return Verdict::More,
                    None | Some(b'&' | b'"' | b'\'' | b' ' | b'\\' | b'\n' | b'>' | b'<') => return Verdict::NotSecret,
                    Some(_) => {}
                },
            }
        }
        Verdict::Secret
    }

    fn scope(&self, rest: &[u8]) -> Verdict {
        let len = rest
            .iter()
            .take(MAX_SCOPE)
            .take_while(|&&byte| byte.is_ascii_alphanumeric() || b"%/-_".contains(&byte))
            .count();
        if len == rest.len() && len < MAX_SCOPE && !self.last {
            return Verdict::More;
        }
        let scope = String::from_utf8_lossy(&rest[..len]).replace("%2F", "/").replace("%2f", "/");
        let parts: Vec<&str> = scope.split('/').collect();
        match parts.as_slice() {
            ["", date, region, service, "aws4_request"]
                if date.len() == 8
                    && date.bytes().all(|byte| byte.is_ascii_digit())
                    && !region.is_empty()
                    && region.len() <= 24
                    && service.len() <= 16 =>
            {
                Verdict::NotSecret
            }
            _ => Verdict::Secret,
        }
    }

    /// Whether `parameter=` stands right before it.
    fn is_value_of(&self, before: &[u8], parameter: &str) -> bool {
        before
            .strip_suffix(b"=")
            .and_then(|before| before.strip_suffix(parameter.as_bytes()))
            .is_some_and(|before| before.last().map_or(self.place.is_query, |byte| b"?&;".contains(byte)))
    }

    /// Whether it stands in the query of the request's own URL.
    fn is_query(&self) -> bool {
        self.is_plain && self.place.is_query
    }

    /// Whether the URL it stands in, or the request in whose query it stands, goes to one of these hosts.
    fn goes_to(&self, before: &[u8], hosts: &[&str]) -> bool {
        let is_one = |host: &str| {
            hosts
                .iter()
                .any(|known| host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        };
        if self.is_query() {
            return is_one(&self.place.host);
        }
        let begins =
            before.iter().rposition(|&byte| byte <= b' ' || b"\"'<>`()".contains(&byte)).map_or(0, |at| at + 1);
        let url = String::from_utf8_lossy(&before[begins..]).to_ascii_lowercase();
        let Some((_, rest)) = url.rsplit_once("https://") else { return false };
        is_one(rest.split(['/', '?', '#']).next().unwrap_or_default())
    }
}

fn distinct(text: &[u8]) -> usize {
    let mut seen = [false; 256];
    text.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|&&seen| seen).count()
}

fn is_published(token: &[u8]) -> bool {
    PUBLISHED.iter().any(|pieces| {
        let mut rest = token;
        pieces.iter().all(|piece| rest.strip_prefix(piece.as_bytes()).map(|after| rest = after).is_some())
    })
}

fn is_placeholder(token: &[u8], prefix: usize) -> bool {
    let lower = token.to_ascii_lowercase();
    let has_word = |word: &&str| lower.windows(word.len()).any(|window| window == word.as_bytes());
    // The part that is random: the longest piece of letters and digits.
    let random = token[prefix.min(token.len())..]
        .split(|byte| !byte.is_ascii_alphanumeric())
        .max_by_key(|piece| piece.len())
        .unwrap_or_default();
    let same = random.chunk_by(|a, b| a == b).any(|run| run.len() >= MAX_SAME && run[0] != b'A');
    let steps = random.windows(2).filter(|pair| pair[1] == pair[0] || pair[1] == pair[0].wrapping_add(1)).count();
    distinct(token) < MIN_DISTINCT
        || same
        || random.len() >= 16 && steps * 10 >= random.len() * 6
        || WORDS.iter().any(has_word)
}

/// The claims of a JSON web token without white space.
fn claims(token: &[u8]) -> String {
    let payload = token.split(|&byte| byte == b'.').nth(1).map(base64::decode).unwrap_or_default();
    String::from_utf8_lossy(&payload).chars().filter(|char| !char.is_whitespace()).collect()
}
