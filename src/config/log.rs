//! `[log]`: what is logged.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// A word alone has to be a level: as the name of a module, which it could be too, it would silence all others.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_bare = |directive: &&str| !directive.contains(['=', '[', ':']);
    if let Some(word) = text.split(',').filter(is_bare).find(|word| word.trim().parse::<LevelFilter>().is_err()) {
        return Err(format!("{word:?} is no level"));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

/// The text of a filter that [`filter`] takes.
pub(super) fn checked(text: &str) -> Result<Option<String>, String> {
    let expected = "expected such as \"info\" or \"info,longhaul::channel=debug\"";
    filter(text).map(|_| Some(text.to_owned())).map_err(|reason| format!("{text:?}: {reason}; {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_modules() {
        for good in ["info", "off", "info,longhaul::channel=debug", "longhaul=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "no such filter", "longhaul=loud", "info,quiet"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
