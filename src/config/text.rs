//! Values as people read them.

use time::OffsetDateTime;

/// A time in seconds since 1970 as `2026-11-21 04:03 UTC`.
pub(crate) fn date(unix: u64) -> String {
    let date = i64::try_from(unix).ok().and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    date.map_or_else(
        || format!("{unix} s after 1970"),
        |at| {
            let (month, day, hour, minute) = (u8::from(at.month()), at.day(), at.hour(), at.minute());
            format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC", at.year())
        },
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_readable() {
        assert_eq!(super::date(1_800_000_000), "2027-01-15 08:00 UTC");
        assert!(super::date(u64::MAX).contains("after 1970"));
    }
}
