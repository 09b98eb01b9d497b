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
        "AKIAIOSFODNN7EXAMPLE".into(),
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
}
