//! `[telemetry]`: what is measured, and where it is sent.

use std::path::Path;

use opentelemetry_sdk::metrics::Temporality;
use toml::Spanned;

use super::Files;
use super::file;
use super::problem::{Problem, Problems};
use super::values;
use crate::telemetry::{Histograms, OtlpSettings, Protocol, Settings};

/// Checks the section, and reads the files that it names. Without one everything is as usual.
pub(super) fn load(
    section: Option<&Spanned<file::Telemetry>>,
    base: &Path,
    files: &dyn Files,
    problems: &mut Problems,
) -> Settings {
    let Some(section) = section else { return Settings::default() };
    let keys = section.get_ref();
    let resource = keys.resource.clone().unwrap_or_default();
    let trace_ratio = keys.trace_ratio.as_ref().and_then(|ratio| {
        let is_share = (0.0..=1.0).contains(ratio.get_ref());
        let outcome = is_share.then_some(*ratio.get_ref()).ok_or("expected a share from 0 to 1, such as 0.01");
        problems.check(ratio.span(), outcome)
    });
    let otlp = otlp(keys, base, files, problems);
    Settings { resource, histograms: histograms(keys, problems), otlp, trace_ratio, logs: keys.logs.unwrap_or(false) }
}

fn histograms(keys: &file::Telemetry, problems: &mut Problems) -> Histograms {
    let boundaries = keys.latency_boundaries_ms.as_ref().and_then(|list| {
        let seconds: Vec<_> = list.get_ref().iter().map(|milliseconds| milliseconds / 1000.0).collect();
        let is_usable = (1..=BOUNDARIES_MAX).contains(&seconds.len())
            && seconds.iter().all(|value| value.is_finite() && *value > 0.0)
            && seconds.windows(2).all(|pair| pair[0] < pair[1]);
        let outcome = is_usable.then_some(seconds).ok_or_else(|| {
            format!("expected 1 to {BOUNDARIES_MAX} ascending numbers above 0, in milliseconds, such as [1, 15, 30]")
        });
        problems.check(list.span(), outcome)
    });
    let sort = keys.histograms.as_ref().and_then(|text| {
        let outcome = match text.get_ref().as_str() {
            "explicit" => Ok(false),
            "exponential" => Ok(true),
            other => Err(format!("\"{other}\" is no sort of histogram; expected \"explicit\" or \"exponential\"")),
        };
        problems.check(text.span(), outcome)
    });
    if sort == Some(true) { Histograms::Exponential } else { Histograms::Explicit(boundaries) }
}

/// Where metrics are sent, if the section says so.
fn otlp(keys: &file::Telemetry, base: &Path, files: &dyn Files, problems: &mut Problems) -> Option<OtlpSettings> {
    let Some(endpoint) = &keys.otlp_endpoint else {
        refuse_without_endpoint(keys, problems);
        return None;
    };
    let mut duration = |text: &file::Text| problems.check_text(text, values::duration_above_zero);
    let (interval, timeout) = (duration(&keys.otlp_interval), duration(&keys.otlp_timeout));
    let protocol = problems.check_text(&keys.otlp_protocol, |text| match text {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => Err(format!("\"{other}\" is no protocol; expected \"grpc\" or \"http/protobuf\"")),
    });
    let temporality = problems.check_text(&keys.otlp_temporality, |text| match text {
        "cumulative" => Ok(Temporality::Cumulative),
        "delta" => Ok(Temporality::Delta),
        "low-memory" => Ok(Temporality::LowMemory),
        other => Err(format!("\"{other}\" is none; expected \"cumulative\", \"delta\" or \"low-memory\"")),
    });
    let place = endpoint.span();
    let is_url = ["http://", "https://"].iter().any(|scheme| endpoint.get_ref().starts_with(scheme));
    if !is_url {
        let message = format!("\"{}\" is no URL of a collector", endpoint.get_ref());
        problems
            .push(Problem::new(message).at(place).help("write it as \"http://collector.example:4317\", or https://"));
    }
    let headers = keys.otlp_headers_file.as_ref().and_then(|path| {
        let bytes = problems.check(path.span(), files.read_private(&base.join(path.get_ref())))?;
        problems.check(path.span(), headers(&bytes))
    });
    let mut public = |path: &file::Text| {
        let path = path.as_ref()?;
        Some(problems.check(path.span(), files.read_public(&base.join(path.get_ref())))?.to_vec())
    };
    let (certificate_authorities, certificate) = (public(&keys.otlp_ca), public(&keys.otlp_certificate));
    let key = keys.otlp_key.as_ref().and_then(|path| {
        problems.check(path.span(), files.read_private(&base.join(path.get_ref()))).map(|key| key.to_vec())
    });
    if keys.otlp_certificate.is_some() != keys.otlp_key.is_some() {
        let place = keys.otlp_certificate.as_ref().or(keys.otlp_key.as_ref()).map(Spanned::span).unwrap_or_default();
        problems
            .push(Problem::new("otlp_certificate and otlp_key belong together").at(place).help("give both, or none"));
    }
    Some(OtlpSettings {
        endpoint: Some(endpoint.get_ref().clone()),
        protocol,
        headers: headers.unwrap_or_default(),
        certificate_authorities,
        client_identity: certificate.zip(key),
        interval,
        timeout,
        temporality,
    })
}

/// Options that say how to send are mistakes when nothing is sent. (That it is may be said by variables; then these say
/// how, too.)
fn refuse_without_endpoint(keys: &file::Telemetry, problems: &mut Problems) {
    let given = [
        ("otlp_protocol", &keys.otlp_protocol),
        ("otlp_headers_file", &keys.otlp_headers_file),
        ("otlp_ca", &keys.otlp_ca),
        ("otlp_certificate", &keys.otlp_certificate),
        ("otlp_key", &keys.otlp_key),
        ("otlp_interval", &keys.otlp_interval),
        ("otlp_timeout", &keys.otlp_timeout),
        ("otlp_temporality", &keys.otlp_temporality),
    ];
    for (name, text) in given {
        if let Some(text) = text {
            let problem = Problem::new(format!("{name} says how to send metrics, and nothing says where to"));
            problems.push(problem.at(text.span()).help("set otlp_endpoint, or remove it"));
        }
    }
}

/// Lines of `name: value`; empty ones and those that begin with `#` are skipped.
fn headers(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = |(index, line): (usize, &str)| {
        // The line itself may be a secret.
        let wrong = || format!("line {} of the file is no header; expected name: value", index + 1);
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let is_legal =
            !name.is_empty() && name.chars().all(is_token) && value.chars().all(|c| (' '..='~').contains(&c));
        if is_legal { Ok((name.to_lowercase(), value.trim().to_owned())) } else { Err(wrong()) }
    };
    lines.map(header).collect()
}

/// Each boundary is a series of each histogram.
const BOUNDARIES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = b"# for the collector\nAuthorization: Basic YTpi==\n\n x-tenant:7 \n";
        assert_eq!(headers(text).unwrap(), [pair("authorization", "Basic YTpi=="), pair("x-tenant", "7")]);
    }

    #[test]
    fn a_wrong_header_is_told_by_its_line_alone() {
        for wrong in ["ok: 1\nsecret", "ok: 1\nna me: secret", "ok: 1\n: secret", "ok: 1\nname: secr\u{7f}et"] {
            let message = headers(wrong.as_bytes()).unwrap_err();
            assert!(message.contains("line 2") && !message.contains("secr"), "{message}");
        }
    }
}
