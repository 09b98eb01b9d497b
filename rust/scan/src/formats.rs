//! Which formats of tokens are known? Data: add a row, and everything else follows.
//!
//! Only formats with a fixed part: guessing by entropy alone stops too much that is no secret. `source` is where the
//! issuer describes its format, or where somebody did who had to know. Examples are made up and stand in pieces, so that
//! no other scanner takes this file for a leak; a test puts them together.

/// One published format.
#[derive(Debug)]
pub struct Format {
    /// Its name, as operators read it.
    pub id: &'static str,
    /// Every match contains one of these, `before` bytes after its beginning.
    pub anchors: &'static [&'static str],
    /// How many bytes of a match may come before its anchor.
    pub before: &'static [usize],
    /// Regular expressions without groups and alternation; the first that matches counts.
    pub shapes: &'static [&'static str],
    /// It does not count after one of these characters (ranges as in a class).
    pub not_after: &'static str,
    /// It does not count before one of these characters.
    pub not_before: &'static str,
    /// Where the format is described.
    pub source: &'static str,
    /// A made-up secret in this format, in pieces.
    pub example: &'static [&'static str],
}

/// Private keys are found by the label of their PEM header (RFC 7468, RFC 9580) and the key material after it.
pub const PRIVATE_KEY: &str = "private key";
/// The same for OpenPGP.
pub const PGP_PRIVATE_KEY: &str = "PGP private key";

/// All formats but private keys.
#[rustfmt::skip]
pub const FORMATS: &[Format] = &[
    Format {
        id: "age secret key",
        anchors: &["AGE-SECRET-KEY-1"],
        before: &[0],
        shapes: &[
            "AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
        ],
        not_after: "",
        not_before: "",
        source: "https://github.com/C2SP/C2SP/blob/main/age.md",
        example: &["AGE-SECRET-KEY-1", "QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQY"],
    },
    Format {
        id: "JSON web token",
        anchors: &["eyJ"],
        before: &[0],
        shapes: &[
            r"eyJ[A-Za-z0-9_-]{10,800}\.eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{16,700}",
        ],
        not_after: "",
        not_before: "",
        source: "https://www.rfc-editor.org/rfc/rfc7519",
        example: &["eyJhbGciOiJFUzI1NiJ9", ".eyJzdWIiOiJib3QtYm90dGxlIn0", ".m8Qf2vZt0KcR7yWnLx4sGdJh1aUoPb3E"],
    },
    Format {
        id: "GitHub token",
        anchors: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        before: &[0],
        shapes: &[
            "gh[pousr]_[A-Za-z0-9]{36,255}",
        ],
        not_after: "",
        not_before: "",
        source: "https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/",
        example: &["ghp_", "R4nd0mW0rdsM4keN0S3cretHereB2t7Kq9xYz"],
    },
    Format {
        id: "GitHub fine-grained token",
        anchors: &["github_pat_"],
        before: &[0],
        shapes: &[
            "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns",
        example: &["github_pat_", "11ABCDE0Y0kQ7mT2xV9wZs", "_", "R8uL3nB6cF1hJ4pD7gS0aK5eM2iO9tW3yX6vQ1zN8rU4lB7fC2jH5dP0gTk"],
    },
    Format {
        id: "GitLab token",
        anchors: &["glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-", "glft-", "glimt-", "glagent-"],
        before: &[0],
        shapes: &[
            "glpat-[A-Za-z0-9_.-]{20,300}",
            "gldt-[A-Za-z0-9_.-]{20,300}",
            "glrt-[A-Za-z0-9_.-]{20,300}",
            "glptt-[A-Za-z0-9_.-]{20,300}",
            "glcbt-[A-Za-z0-9_.-]{20,300}",
            "glsoat-[A-Za-z0-9_.-]{20,300}",
            "glft-[A-Za-z0-9_.-]{20,300}",
            "glimt-[A-Za-z0-9_.-]{20,300}",
            "glagent-[A-Za-z0-9_.-]{20,300}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.gitlab.com/security/tokens/",
        example: &["glpat-", "x7Kq2Vw9ZtR4mB6nYc1D"],
    },
    Format {
        id: "AWS access key id",
        anchors: &["AKIA", "ASIA", "ABIA", "ACCA"],
        before: &[0],
        shapes: &[
            "A[KSBC][IC]A[A-Z2-7]{16}",
        ],
        not_after: "",
        not_before: "A-Za-z0-9",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html",
        example: &["AKIA", "Q3RV7KX2MZP5TWN4"],
    },
    Format {
        id: "AWS secret access key",
        anchors: &["ccess_key", "ccessKey", "CCESS_KEY", "ccess-key"],
        before: &[7, 8],
        shapes: &[
            r#"[sS][eE][cC][rR][eE][tT][_-]?[aA][cC][cC][eE][sS][sS][_-]?[kK][eE][yY]["'\\]{0,3}[\s+]{0,3}[=:,][\s+]{0,3}["'\\]{0,3}[A-Za-z0-9/+]{40}"#,
        ],
        not_after: "",
        not_before: "A-Za-z0-9+",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html",
        example: &["aws_secret_access_key = ", "q7T/zK2mVx9+Lw4RnB6cY1fHj8PdSg0aUe3iOt5W"],
    },
    Format {
        id: "AWS Bedrock key",
        anchors: &["ABSK"],
        before: &[0],
        shapes: &[
            "ABSK[A-Za-z0-9+/]{109,269}={0,2}",
        ],
        not_after: "A-Za-z0-9+",
        not_before: "",
        source: "https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html",
        example: &["ABSK", "QmVkcm9ja0FQSUtleS1hYmN", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9R4m7V1x3Z5q8B0n", "T6y2u4i9o7p"],
    },
    Format {
        id: "Google API key",
        anchors: &["AIza"],
        before: &[0],
        shapes: &[
            "AIza[A-Za-z0-9_-]{35}",
        ],
        not_after: "",
        not_before: "",
        source: "https://cloud.google.com/docs/authentication/api-keys",
        example: &["AIza", "SyB7x2Kq9Vw4ZtR6mN1cYfHj8PdSg0aUe3iOt"],
    },
    Format {
        id: "Google OAuth secret",
        anchors: &["GOCSPX-"],
        before: &[0],
        shapes: &[
            "GOCSPX-[A-Za-z0-9_-]{28}",
        ],
        not_after: "",
        not_before: "",
        source: "https://developers.google.com/identity/protocols/oauth2",
        example: &["GOCSPX-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS"],
    },
    Format {
        id: "Google OAuth token",
        anchors: &["ya29."],
        before: &[0],
        shapes: &[
            r"ya29\.[A-Za-z0-9_.-]{30,1024}",
        ],
        not_after: "",
        not_before: "",
        source: "https://developers.google.com/identity/protocols/oauth2",
        example: &["ya29.", "a0x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0"],
    },
    Format {
        id: "Google refresh token",
        anchors: &["1//0"],
        before: &[0],
        shapes: &[
            "1//0[A-Za-z0-9_-]{40,256}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://developers.google.com/identity/protocols/oauth2",
        example: &["1//0", "3x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXz"],
    },
    Format {
        id: "Azure storage key",
        anchors: &["AccountKey="],
        before: &[0],
        shapes: &[
            "AccountKey=[A-Za-z0-9/+]{86}==",
        ],
        not_after: "",
        not_before: "",
        source: "https://learn.microsoft.com/en-us/azure/storage/common/storage-configure-connection-string",
        example: &["AccountKey=", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9R4m7V1x3Z5q8B0nT6y", "=="],
    },
    Format {
        id: "Azure client secret",
        anchors: &["0Q~", "1Q~", "2Q~", "3Q~", "4Q~", "5Q~", "6Q~", "7Q~", "8Q~", "9Q~"],
        before: &[3],
        shapes: &[
            r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}",
        ],
        not_after: "",
        not_before: "",
        source: "https://learn.microsoft.com/en-us/purview/sit-defn-azure-ad-client-secret",
        example: &["abc8Q~", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aT"],
    },
    Format {
        id: "Anthropic key",
        anchors: &["sk-ant-"],
        before: &[0],
        shapes: &[
            r"sk-ant-[a-z]{2,8}\d{2}-[A-Za-z0-9_-]{20,256}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.claude.com/en/api/overview",
        example: &["sk-ant-", "api03-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQ"],
    },
    Format {
        id: "OpenAI key",
        anchors: &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-service-", "sk-None-"],
        before: &[0],
        shapes: &[
            "sk-proj-[A-Za-z0-9_-]{20,256}",
            "sk-svcacct-[A-Za-z0-9_-]{20,256}",
            "sk-admin-[A-Za-z0-9_-]{20,256}",
            "sk-service-[A-Za-z0-9_-]{20,256}",
            "sk-None-[A-Za-z0-9_-]{20,256}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://platform.openai.com/docs/api-reference/authentication",
        example: &["sk-", "proj-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQ"],
    },
    Format {
        id: "OpenRouter key",
        anchors: &["sk-or-v"],
        before: &[0],
        shapes: &[
            r"sk-or-v\d-[0-9a-f]{64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://openrouter.ai/docs/api-reference/authentication",
        example: &["sk-or-", "v1-", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f7a1c5e83b6d4f09a2c7e1b8d"],
    },
    Format {
        id: "OpenAI-style key",
        anchors: &["sk-"],
        before: &[0],
        shapes: &[
            "sk-[A-Za-z0-9]{32,96}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://platform.openai.com/docs/api-reference/authentication",
        example: &["sk-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNr5"],
    },
    Format {
        id: "Groq key",
        anchors: &["gsk_"],
        before: &[0],
        shapes: &[
            "gsk_[A-Za-z0-9]{48,56}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://console.groq.com/docs/quickstart",
        example: &["gsk_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlC"],
    },
    Format {
        id: "xAI key",
        anchors: &["xai-"],
        before: &[0],
        shapes: &[
            "xai-[A-Za-z0-9]{70,90}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.x.ai/docs/overview",
        example: &["xai-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9R4m7V1x3Z5q8"],
    },
    Format {
        id: "Perplexity key",
        anchors: &["pplx-"],
        before: &[0],
        shapes: &[
            "pplx-[A-Za-z0-9]{40,64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.perplexity.ai/getting-started/quickstart",
        example: &["pplx-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNr5"],
    },
    Format {
        id: "Hugging Face token",
        anchors: &["hf_"],
        before: &[0],
        shapes: &[
            "hf_[A-Za-z0-9]{34,40}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://huggingface.co/docs/hub/security-tokens",
        example: &["hf_", "xKqVwZtRmBnYcDgHjLpSuEaTfIoWvXzQbM"],
    },
    Format {
        id: "Replicate token",
        anchors: &["r8_"],
        before: &[0],
        shapes: &[
            "r8_[A-Za-z0-9]{37}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://replicate.com/docs/topics/security/api-tokens",
        example: &["r8_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIo"],
    },
    Format {
        id: "Slack token",
        anchors: &["xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-"],
        before: &[0],
        shapes: &[
            "xox[a-eopr-s][.-][A-Za-z0-9%.-]{20,255}",
        ],
        not_after: "",
        not_before: "",
        source: "https://api.slack.com/concepts/token-types",
        example: &["xoxb-", "123456789012-", "123456789012-", "x7Kq2Vw9ZtR4mB6nYc1DgH3j"],
    },
    Format {
        id: "Slack app token",
        anchors: &["xapp-"],
        before: &[0],
        shapes: &[
            r"xapp-\d-[A-Z0-9]{6,20}-\d{6,20}-[A-Za-z0-9]{32,100}",
        ],
        not_after: "",
        not_before: "",
        source: "https://api.slack.com/concepts/token-types",
        example: &["xapp-", "1-A0123456789-", "1234567890123-", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f7a1c5e83b6d4f09a2c7e1b8d"],
    },
    Format {
        id: "Slack webhook",
        anchors: &["hooks.slack.com/"],
        before: &[0],
        shapes: &[
            r"hooks\.slack\.com/services/[A-Za-z0-9/]{40,70}",
            r"hooks\.slack\.com/workflows/[A-Za-z0-9/]{40,70}",
            r"hooks\.slack\.com/triggers/[A-Za-z0-9/]{40,70}",
        ],
        not_after: "",
        not_before: "",
        source: "https://api.slack.com/messaging/webhooks",
        example: &["hooks.slack.com/", "services/T01ABCD2EFG/", "B03HIJK4LMN/", "x7Kq2Vw9ZtR4mB6nYc1DgH3j"],
    },
    Format {
        id: "Discord webhook",
        anchors: &["/api/webhooks/"],
        before: &[0],
        shapes: &[
            r"/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,80}",
        ],
        not_after: "",
        not_before: "",
        source: "https://discord.com/developers/docs/resources/webhook",
        example: &["discord.com", "/api/webhooks/", "123456789012345678/", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9"],
    },
    Format {
        id: "Telegram bot token",
        anchors: &[":AA"],
        before: &[8, 9, 10],
        shapes: &[
            r"\d{8,10}:AA[A-Za-z0-9_-]{33}",
        ],
        not_after: "0-9",
        not_before: "A-Za-z0-9_-",
        source: "https://core.telegram.org/bots/api#authorizing-your-bot",
        example: &["123456789", ":AA", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0a"],
    },
    Format {
        id: "Stripe key",
        anchors: &["_live_", "_test_"],
        before: &[2],
        shapes: &[
            "[sr]k_live_[A-Za-z0-9]{16,247}",
            "[sr]k_test_[A-Za-z0-9]{16,247}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.stripe.com/keys",
        example: &["sk_", "live_", "x7Kq2Vw9ZtR4mB6nYc1DgH3j"],
    },
    Format {
        id: "Stripe webhook secret",
        anchors: &["whsec_"],
        before: &[0],
        shapes: &[
            "whsec_[A-Za-z0-9+/]{32,64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.stripe.com/webhooks",
        example: &["whsec_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0"],
    },
    Format {
        id: "Square token",
        anchors: &["sq0"],
        before: &[0],
        shapes: &[
            "sq0atp-[A-Za-z0-9_-]{22,43}",
            "sq0csp-[A-Za-z0-9_-]{22,43}",
            "sq0idp-[A-Za-z0-9_-]{22,43}",
        ],
        not_after: "",
        not_before: "",
        source: "https://developer.squareup.com/docs/build-basics/access-tokens",
        example: &["sq0atp-", "x7Kq2Vw9ZtR4mB6nYc1DgH"],
    },
    Format {
        id: "Shopify token",
        anchors: &["shpat_", "shpca_", "shppa_", "shpss_"],
        before: &[0],
        shapes: &[
            "shp[acps][ats]_[a-fA-F0-9]{32}",
        ],
        not_after: "",
        not_before: "",
        source: "https://shopify.dev/changelog/length-of-the-shopify-access-token-is-increasing",
        example: &["shpat_", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c4"],
    },
    Format {
        id: "SendGrid key",
        anchors: &["SG."],
        before: &[0],
        shapes: &[
            r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys",
        example: &["SG.", "x7Kq2Vw9ZtR4mB6nYc1DgH", ".", "3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F"],
    },
    Format {
        id: "npm token",
        anchors: &["npm_"],
        before: &[0],
        shapes: &[
            "npm_[A-Za-z0-9]{36}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.npmjs.com/about-access-tokens",
        example: &["npm_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfI"],
    },
    Format {
        id: "PyPI token",
        anchors: &["pypi-AgE"],
        before: &[0],
        shapes: &[
            "pypi-AgE[A-Za-z0-9_-]{60,400}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.pypi.org/api/secrets/",
        example: &["pypi-AgE", "IcHlwaS5vcmcx7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUe"],
    },
    Format {
        id: "crates.io token",
        anchors: &["cio"],
        before: &[0],
        shapes: &[
            "cio[A-Za-z0-9]{32}",
        ],
        not_after: "A-Za-z0-9+_-",
        not_before: "A-Za-z0-9+_-",
        source: "https://doc.rust-lang.org/cargo/reference/registry-authentication.html",
        example: &["cio", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0"],
    },
    Format {
        id: "RubyGems key",
        anchors: &["rubygems_"],
        before: &[0],
        shapes: &[
            "rubygems_[a-f0-9]{48}",
        ],
        not_after: "",
        not_before: "",
        source: "https://guides.rubygems.org/api-key-scopes/",
        example: &["rubygems_", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f7a1c5e83"],
    },
    Format {
        id: "Docker Hub token",
        anchors: &["dckr_pat_", "dckr_oat_"],
        before: &[0],
        shapes: &[
            "dckr_[po]at_[A-Za-z0-9_-]{27,48}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.docker.com/security/access-tokens/",
        example: &["dckr_pat_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5p"],
    },
    Format {
        id: "Atlassian token",
        anchors: &["ATATT3", "ATCTT3"],
        before: &[0],
        shapes: &[
            "AT[AC]TT3[A-Za-z0-9_=-]{100,300}",
        ],
        not_after: "",
        not_before: "",
        source: "https://developer.atlassian.com/cloud/confluence/basic-auth-for-rest-apis/",
        example: &["ATATT3", "xFfGF0x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9R4m7V1x3Z5q8B0nT6yGrMcXfHjWpLdKs4v"],
    },
    Format {
        id: "Linear key",
        anchors: &["lin_api_", "lin_oauth_"],
        before: &[0],
        shapes: &[
            "lin_api_[A-Za-z0-9]{40,64}",
            "lin_oauth_[A-Za-z0-9]{40,64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://linear.app/developers",
        example: &["lin_api_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvX"],
    },
    Format {
        id: "Notion token",
        anchors: &["ntn_"],
        before: &[0],
        shapes: &[
            "ntn_[A-Za-z0-9]{40,50}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://developers.notion.com/docs/authorization",
        example: &["ntn_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdN"],
    },
    Format {
        id: "Figma token",
        anchors: &["figd_"],
        before: &[0],
        shapes: &[
            "figd_[A-Za-z0-9_-]{38,46}",
        ],
        not_after: "",
        not_before: "",
        source: "https://www.figma.com/developers/api#access-tokens",
        example: &["figd_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvX"],
    },
    Format {
        id: "Databricks token",
        anchors: &["dapi"],
        before: &[0],
        shapes: &[
            r"dapi[a-f0-9]{32}-?\d?",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.databricks.com/aws/en/dev-tools/auth/pat",
        example: &["dapi", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c4"],
    },
    Format {
        id: "DigitalOcean token",
        anchors: &["_v1_"],
        before: &[3],
        shapes: &[
            "do[opr]_v1_[a-f0-9]{64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.digitalocean.com/reference/api/create-personal-access-token/",
        example: &["dop_v1_", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f7a1c5e83b6d4f09a2c7e1b8d"],
    },
    Format {
        id: "Heroku key",
        anchors: &["HRKU-"],
        before: &[0],
        shapes: &[
            "HRKU-[A-Za-z0-9_-]{36,80}",
        ],
        not_after: "",
        not_before: "",
        source: "https://devcenter.heroku.com/articles/platform-api-quickstart",
        example: &["HRKU-", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvX"],
    },
    Format {
        id: "HashiCorp Vault token",
        anchors: &["hvs.", "hvb."],
        before: &[0],
        shapes: &[
            r"hv[sb]\.[A-Za-z0-9_-]{24,300}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://developer.hashicorp.com/vault/docs/concepts/tokens",
        example: &["hvs.", "CAESIx7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvX"],
    },
    Format {
        id: "Terraform Cloud token",
        anchors: &[".atlasv1."],
        before: &[14],
        shapes: &[
            r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}",
        ],
        not_after: "",
        not_before: "",
        source: "https://developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens",
        example: &["x7Kq2Vw9ZtR4mB", ".atlasv1.", "6nYc1DgH3jL5pS8uE0aTfIoWvXzQbMdNrGyKlCiUeJhPsOtAw6F2k9R4m7V1x3Z5"],
    },
    Format {
        id: "Grafana token",
        anchors: &["glsa_", "glc_"],
        before: &[0],
        shapes: &[
            "glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}",
            "glc_[A-Za-z0-9+/]{32,400}",
        ],
        not_after: "",
        not_before: "",
        source: "https://grafana.com/docs/grafana/latest/administration/service-accounts/",
        example: &["glsa_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0", "_3f9a2c7e"],
    },
    Format {
        id: "Sentry token",
        anchors: &["sntrys_", "sntryu_"],
        before: &[0],
        shapes: &[
            "sntrys_eyJ[A-Za-z0-9_+/=-]{40,400}",
            "sntryu_[a-f0-9]{64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.sentry.io/account/auth-tokens/",
        example: &["sntryu_", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f7a1c5e83b6d4f09a2c7e1b8d"],
    },
    Format {
        id: "New Relic key",
        anchors: &["NRAK-"],
        before: &[0],
        shapes: &[
            "NRAK-[A-Z0-9]{27}",
        ],
        not_after: "",
        not_before: "",
        source: "https://docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys/",
        example: &["NRAK-", "X7KQ2VW9ZTR4MB6NYC1DGH3JL5P"],
    },
    Format {
        id: "Supabase key",
        anchors: &["sbp_", "sb_secret_"],
        before: &[0],
        shapes: &[
            "sbp_[a-f0-9]{40}",
            "sb_secret_[A-Za-z0-9_-]{30,48}",
        ],
        not_after: "",
        not_before: "",
        source: "https://supabase.com/docs/guides/api/api-keys",
        example: &["sbp_", "3f9a2c7e1b8d4f60a5c2e9b7d1f3a8c46e0b9d2f"],
    },
    Format {
        id: "Tailscale key",
        anchors: &["tskey-"],
        before: &[0],
        shapes: &[
            "tskey-[a-z]{2,12}-[A-Za-z0-9]{8,20}-[A-Za-z0-9]{16,40}",
        ],
        not_after: "",
        not_before: "",
        source: "https://tailscale.com/kb/1085/auth-keys",
        example: &["tskey-", "auth-", "kx7Kq2Vw9ZtCNTRL-", "R4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQ"],
    },
    Format {
        id: "Netlify token",
        anchors: &["nfp_"],
        before: &[0],
        shapes: &[
            "nfp_[A-Za-z0-9]{36}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.netlify.com/api/get-started/",
        example: &["nfp_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfI"],
    },
    Format {
        id: "PlanetScale token",
        anchors: &["pscale_"],
        before: &[0],
        shapes: &[
            "pscale_tkn_[A-Za-z0-9_.=-]{32,64}",
            "pscale_pw_[A-Za-z0-9_.=-]{32,64}",
            "pscale_oauth_[A-Za-z0-9_.=-]{32,64}",
        ],
        not_after: "",
        not_before: "",
        source: "https://planetscale.com/docs/api/reference/service-tokens",
        example: &["pscale_tkn_", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQb"],
    },
    Format {
        id: "Doppler token",
        anchors: &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."],
        before: &[0],
        shapes: &[
            r"dp\.pt\.[A-Za-z0-9._-]{40,80}",
            r"dp\.st\.[A-Za-z0-9._-]{40,80}",
            r"dp\.ct\.[A-Za-z0-9._-]{40,80}",
            r"dp\.sa\.[A-Za-z0-9._-]{40,80}",
            r"dp\.scim\.[A-Za-z0-9._-]{40,80}",
            r"dp\.audit\.[A-Za-z0-9._-]{40,80}",
        ],
        not_after: "A-Za-z0-9",
        not_before: "",
        source: "https://docs.doppler.com/reference/auth-token-formats",
        example: &["dp.pt.", "x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfIoWvXzQb"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn every_format_is_told_apart_without_looking_back() {
        for format in FORMATS {
            for shape in format.shapes {
                assert!(Shape::parse(shape).is_deterministic(), "{}: {shape}", format.id);
            }
        }
    }

    #[test]
    fn every_format_has_a_source_an_example_and_a_name_of_its_own() {
        for (index, format) in FORMATS.iter().enumerate() {
            assert!(format.source.starts_with("https://"), "{}", format.id);
            assert!(format.anchors.iter().any(|anchor| format.example.concat().contains(anchor)), "{}", format.id);
            assert!(FORMATS[index + 1..].iter().all(|other| other.id != format.id), "{}", format.id);
        }
    }
}
