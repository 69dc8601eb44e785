//! The rule for secret scanners in `deploy/gitleaks.toml`: it finds the tokens that the program makes, and nothing else.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use longhaul::base::SystemEntropy;
use longhaul::crypto::token::JoinToken;
use regex::Regex;

/// The rule's expression, and the words of which a text has to have one before it is looked at.
fn rule() -> (Regex, Vec<String>) {
    let file: toml::Table = include_str!("../deploy/gitleaks.toml").parse().unwrap();
    let rules = file["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["secretGroup"].as_integer(), Some(1));
    let words = rules[0]["keywords"].as_array().unwrap();
    let words = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    (Regex::new(rules[0]["regex"].as_str().unwrap()).unwrap(), words)
}

fn token() -> String {
    JoinToken::generate([9; 32], &mut SystemEntropy::new()).to_text().to_string()
}

#[test]
fn tokens_are_found_wherever_they_stand() {
    let (rule, words) = rule();
    // Enough that every letter of base64url has been at either end of its part.
    for _ in 0..500 {
        let token = token();
        assert!(words.iter().any(|word| token.contains(word)));
        for text in [
            token.clone(),
            format!("{token}\n"),
            format!("LONGHAUL_TOKEN={token}"),
            format!("token: \"{token}\","),
            format!("https://example.org/?t={token}&x=1"),
            format!("see ({token})."),
        ] {
            let found = rule.captures(&text).unwrap_or_else(|| panic!("not found: {text}"));
            assert_eq!(&found[1], token);
        }
    }
}

#[test]
fn what_is_no_token_is_not_found() {
    let (rule, _) = rule();
    let token = token();
    for text in [
        &token[..100],
        &token[1..],
        &token.to_uppercase(),
        &token.replace("lhjoin_", "lhjoin-"),
        &format!("x{token}"),
        &format!("{token}x"),
        "a token begins with lhjoin_ and has 117 characters",
        "lhjoin_<id>_<seed>_<pin>_<checksum>",
        &"lhjoin_".repeat(20),
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        include_str!("../README.md"),
        include_str!("../docs/how-to/onboard-by-token.md"),
        include_str!("../docs/reference/cli.md"),
    ] {
        assert!(!rule.is_match(text), "{text}");
    }
}
