//! What agents send all day holds no secret: made by generators, since no real traffic belongs into a repository.

use bot_bottle_scan::{Finding, Place};

use crate::made::{Noise, b64, b64url, deflate, detectors, gzip, scan_cut, zip, zlib};

fn found_at(text: &[u8], place: Place) -> Vec<Finding> {
    scan_cut(&detectors(), text, &[], place).unwrap()
}

fn is_clean(name: &str, text: &[u8]) {
    assert_eq!(found_at(text, Place::body("api.example.test")), [], "{name}");
}

#[test]
fn megabytes_of_noise_hold_no_secret() {
    let noise = Noise(7).bytes(1 << 20);
    let hex: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, text) in [
        ("bytes", noise.clone()),
        ("base64", b64(&noise).into_bytes()),
        ("base64 for URLs", b64url(&noise).into_bytes()),
        ("hex", hex.into_bytes()),
        ("zlib", zlib(&noise, 15)),
    ] {
        is_clean(name, &text);
    }
}

#[test]
fn lockfiles_hold_no_secret() {
    let mut noise = Noise(21);
    let (mut npm, mut cargo, mut pip, mut go) = (String::new(), String::new(), String::new(), String::new());
    for number in 0..3000 {
        let name = noise.of("abcdefghijklmnopqrstuvwxyz-", 12);
        npm += &format!(
            "\"node_modules/{name}\": {{\"version\": \"1.{number}.0\", \"integrity\": \"sha512-{}\"}},\n",
            noise.base64(64)
        );
        cargo += &format!(
            "[[package]]\nname = \"{name}\"\nversion = \"1.{number}.0\"\nchecksum = \"{}\"\n\n",
            noise.hex(64)
        );
        pip += &format!(
            "{name}==1.{number} \\\n    --hash=sha256:{} \\\n    --hash=sha256:{}\n",
            noise.hex(64),
            noise.hex(64)
        );
        go += &format!("github.com/{name}/mod v1.{number}.0 h1:{}\n", noise.base64(32));
    }
    for (name, text) in [("npm", npm), ("cargo", cargo), ("pip", pip), ("go", go)] {
        is_clean(name, text.as_bytes());
    }
}

#[test]
fn wheels_packs_source_maps_and_manifests_hold_no_secret() {
    let mut noise = Noise(22);
    let wheel: Vec<u8> = (0..60).flat_map(|_| zip(noise.base64(3000).as_bytes())).collect();
    is_clean("wheel", &wheel);
    is_clean("crate", &gzip(&noise.bytes(400_000)));
    let pack: Vec<u8> = (0..400)
        .flat_map(|_| {
            [vec![noise.next() as u8 | 0x80, 0x05], zlib(noise.hex(600).as_bytes(), 15), noise.bytes(20)].concat()
        })
        .collect();
    is_clean("git pack", &pack);
    is_clean("deflated", &deflate(noise.base64(200_000).as_bytes()));
    let mappings: Vec<String> =
        (0..9000).map(|_| noise.of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/", 4)).collect();
    is_clean("source map", format!("{{\"version\":3,\"mappings\":\"{}\"}}", mappings.join(",")).as_bytes());
    let layers: Vec<String> = (0..40)
        .map(|_| {
            format!(
                "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:{}\"}}",
                noise.hex(64)
            )
        })
        .collect();
    is_clean("OCI manifest", format!("{{\"schemaVersion\":2,\"layers\":[{}]}}", layers.join(",")).as_bytes());
}

fn token(claims: &str, signature: &str) -> String {
    format!("{}.{}.{signature}", b64url(br#"{"alg":"HS256","typ":"JWT"}"#), b64url(claims.as_bytes()))
}

#[test]
fn signed_urls_are_let_through_to_the_host_they_are_signed_for_alone() {
    let mut noise = Noise(23);
    let jwt = token(
        r#"{"iss":"github.com","aud":"release-assets.githubusercontent.com","key":"key1","exp":1}"#,
        &noise.letters(43),
    );
    let key = format!("AKIA{}", noise.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16));
    let signed = format!("X-Amz-Signature={}", noise.hex(64));
    let asset = format!("sp=r&sig={}%3D&jwt={jwt}&response-content-type=application%2Foctet-stream", noise.letters(43));
    let s3 = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&{signed}"
    );
    let old = format!("AWSAccessKeyId={key}&Signature={}%3D&Expires=1", noise.letters(27));
    let sas = format!("sv=2022-11-02&sr=b&sig={}%3D&se=2026-01-01", noise.letters(43));
    let gcs = format!(
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40b.iam.gserviceaccount.com%2F20260101&X-Goog-Signature={}",
        noise.hex(512)
    );
    for (host, query) in [
        ("release-assets.githubusercontent.com", &asset),
        ("bucket.s3.us-east-1.amazonaws.com", &s3),
        ("bucket.s3.amazonaws.com", &old),
        ("x.blob.core.windows.net", &sas),
        ("storage.googleapis.com", &gcs),
    ] {
        assert_eq!(found_at(query.as_bytes(), Place::query(host)), [], "{host}");
        is_clean(host, format!("see \"https://{host}/path/file?{query}\" for it").as_bytes());
    }
    // Another host, another parameter, another issuer, another shape: each is a secret.
    assert_ne!(found_at(asset.as_bytes(), Place::query("evil.example")), []);
    assert_ne!(found_at(asset.as_bytes(), Place::query("evil-githubusercontent.com")), []);
    assert_ne!(found_at(asset.replace("jwt=", "q=").as_bytes(), Place::query("x.githubusercontent.com")), []);
    let other = asset.replace(&jwt, &token(r#"{"iss":"bank.example","exp":1}"#, &noise.letters(43)));
    assert_ne!(found_at(other.as_bytes(), Place::query("release-assets.githubusercontent.com")), []);
    assert_ne!(found_at(s3.replace("aws4_request", "x").as_bytes(), Place::query("b.s3.amazonaws.com")), []);
    assert_ne!(found_at(old.replace("AWSAccessKeyId", "note").as_bytes(), Place::query("b.s3.amazonaws.com")), []);
    assert_ne!(found_at(s3.as_bytes(), Place::query("evil.example")), []);
    assert_ne!(found_at(format!("https://b.s3.amazonaws.com@evil.example/?{s3}").as_bytes(), Place::body("x")), []);
}

type Dress = fn(&str) -> String;

#[test]
fn signed_urls_are_let_through_however_a_body_spells_them() {
    let mut noise = Noise(28);
    let mut key = |kind: &str| format!("{kind}{}", noise.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16));
    let (long, short) = (key("AKIA"), key("ASIA"));
    let session = percent(&format!("IQoJb3JpZ2luX2Vj{}", noise.base64(600)));
    let scope = "20260101%2Fus-east-1%2Fs3%2Faws4_request";
    let jwt = token(
        r#"{"iss":"github.com","aud":"release-assets.githubusercontent.com","key":"key1","exp":1}"#,
        &noise.letters(43),
    );
    let signature = percent(&noise.base64(32));
    let urls = [
        format!(
            "https://b.s3.us-east-1.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential={short}%2F{scope}&X-Amz-Security-Token={session}&X-Amz-Signature=0"
        ),
        format!(
            "https://github-cloud.s3.amazonaws.com/a/b?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={long}%2F{scope}&actor_id=1&token=1"
        ),
        format!("https://b.s3.amazonaws.com/k?Expires=1&AWSAccessKeyId={long}&Signature={signature}"),
        format!(
            "https://release-assets.githubusercontent.com/a/b?sp=r&sig={signature}&jwt={jwt}&response-content-type=a%2Fb"
        ),
        format!(
            "https://storage.googleapis.com/b/k?X-Goog-Credential=a%40b.iam.gserviceaccount.com%2F20260101%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Signature={}",
            noise.hex(512)
        ),
        format!(
            "https://storage.googleapis.com/b/k?GoogleAccessId=a%40b.iam.gserviceaccount.com&Signature={}",
            percent(&noise.base64(256))
        ),
        format!(
            "https://x.blob.core.windows.net/c/k?sv=2022-11-02&ss=b&sig={signature}&skoid=ca7593d4-ee42-46cd-af88-8b886a2f84eb"
        ),
        format!(
            "https://d1.cloudfront.net/k?Expires=1&Policy={}__&Signature={}__&Key-Pair-Id=K2JCJMDEHXQW5F",
            b64url(&noise.bytes(200)),
            b64url(&noise.bytes(256))
        ),
    ];
    let dresses: [(&str, Dress); 6] = [
        ("JSON", |url| format!("{{\"href\": \"{url}\"}}")),
        ("JSON of Go", |url| format!("{{\"href\":\"{}\"}}", url.replace('&', "\\u0026"))),
        ("JSON in JSON", |url| format!("{{\"text\":\"{{\\\"href\\\":\\\"{}\\\"}}\"}}", url.replace('&', "\\\\u0026"))),
        ("HTML", |url| format!("<a href=\"{}\">it</a>", url.replace('&', "&amp;"))),
        ("Markdown", |url| format!("[it]({url}).")),
        ("another URL's query", |url| format!("to=1&next={}&then=2", percent(url))),
    ];
    for url in &urls {
        for (name, dressed) in &dresses {
            is_clean(&format!("{url} in {name}"), dressed(url).as_bytes());
            // The same of a host that nobody signs URLs for.
            let other = dressed(
                &url.replace(".amazonaws.com/", ".evil.example/").replace("githubusercontent.com/", "evil.example/"),
            );
            let is_bare = url.contains("X-Amz-") || url.contains("AWSAccess") || url.contains("jwt=");
            assert_eq!(!found_at(other.as_bytes(), Place::body("x")).is_empty(), is_bare, "{other}");
        }
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[test]
fn published_keys_and_documentation_hold_no_secret() {
    let signature = Noise(24).letters(43);
    let examples = [
        token(r#"{"iss":"supabase","ref":"abcdefghijklmnop","role":"anon","exp":1983812996}"#, &signature),
        token(r#"{"iss":"supabase-demo","role":"service_role","exp":1983812996}"#, &signature),
        token(r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#, &signature),
        ["sk_", "test_", "4eC39HqLyjWDarjtT1zdp7dc"].concat(),
        ["https://hooks.", "slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"].concat(),
        [
            "https://discord.com",
            "/api/webhooks/223704706495545344/3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372ba",
        ]
        .concat(),
        ["gho_", "16C7e42F292c6912E7710c838347Ae178B4a"].concat(),
        ["ghr_", "1B4a2e77838347a7E420ce178F2E7c6912E169246c34E1ccbF66C46812d16D5B1A9Dc86A1498"].concat(),
        ["SG.", "ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"].concat(),
        ["xoxb-", "17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"].concat(),
        "AKIAIOSFODNN7EXAMPLE".into(),
        // For browsers and phones, and so for everybody.
        format!("pk_live_{}", Noise(29).letters(24)),
        format!("sb_publishable_{}_{}", Noise(30).letters(22), Noise(31).letters(8)),
        format!("pk.eyJ1Ijoi{}.{}", Noise(32).letters(30), Noise(33).letters(22)),
        format!("https://{}@o447951.ingest.sentry.io/5429213", Noise(34).hex(32)),
        format!("phc_{}", Noise(35).letters(43)),
        format!("6L{}", Noise(36).letters(38)),
        format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me@host", Noise(37).base64(32)),
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", Noise(38).base64(900)),
        format!("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{}\n", Noise(39).base64(900)),
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        format!("ghp_{}", "x".repeat(36)),
        format!("sk-{}", "x".repeat(48)),
        "sk-abcdefghijklmnopqrstuvwxyz1234567890".into(),
        format!("-----BEGIN PUBLIC KEY-----\n{}\n", Noise(25).base64(48)),
        "-----BEGIN PRIVATE KEY----- is how a private key begins, and here is a sentence that goes on for a while."
            .into(),
        "the github_pat_ prefix, the ghp_ prefix and the xoxb- prefix".into(),
        format!("task-{}", Noise(26).hex(32)),
        "AccountKey=<your key>".into(),
    ];
    for text in examples {
        is_clean(&text.clone(), text.as_bytes());
    }
}

#[test]
fn streamed_answers_of_a_language_model_hold_no_secret() {
    let mut noise = Noise(27);
    let mut text = String::new();
    for number in 0..4000 {
        let word = noise.of("abcdefghijklmnopqrstuvwxyz_(){};\\", 14).replace('\\', "\\\\n");
        text += &format!(
            "data: {{\"id\":\"chatcmpl-{}\",\"n\":{number},\"delta\":{{\"content\":\"{word} sk- eyJ ghp_\"}}}}\n\n",
            noise.letters(29)
        );
    }
    is_clean("SSE", text.as_bytes());
    // What is signed or encrypted for the model's own next turn, and ids.
    for number in 0..400 {
        let (id, call) = (noise.hex(48), noise.letters(22));
        let turn = format!(
            "data: {{\"type\":\"signature_delta\",\"signature\":\"{}\"}}\n\n\
             data: {{\"id\":\"rs_{id}\",\"encrypted_content\":\"gAAAAABo{}\",\"call_id\":\"call_{call}\"}}\n\n\
             data: {{\"id\":\"toolu_01{call}\",\"partial_json\":\"{{\\\"path\\\": \\\"/src/{number}.rs\\\"\"}}\n\n\
             data: {{\"thoughtSignature\":\"{}\"}}\n\n",
            noise.base64(700),
            b64url(&noise.bytes(900)),
            noise.base64(900)
        );
        is_clean("turn", turn.as_bytes());
    }
}
