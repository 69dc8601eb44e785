//! Values written as text: durations such as `"5s"`, sizes such as `"1MiB"`, octal modes, switches.

use std::time::Duration;

/// Reads `"200ms"`, `"5s"`, `"2m"`, `"1h"` or `"1d"`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!(
            "\"{text}\" is no duration; expected a whole number and a unit, such as \"200ms\", \"5s\", \"2m\", \"1h\" or \"1d\""
        )
    };
    let (number, unit) = split(text).ok_or_else(bad)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(milliseconds).filter(|ms| *ms <= DURATION_MS_MAX).map(Duration::from_millis).ok_or_else(bad)
}

/// A duration that is not zero.
pub(super) fn duration_above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("\"{text}\" is too short; expected more than zero")),
        duration => Ok(duration),
    }
}

/// A duration above zero, or `"off"`.
pub(super) fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { duration_above_zero(text).map(Some) }
}

/// Reads `"100B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`, or their decimal kin `"64kB"`, `"1MB"`, `"2GB"`; in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!("\"{text}\" is no size; expected a whole number and a unit, such as \"64KiB\", \"1MiB\" or \"2GiB\"")
    };
    let (number, unit) = split(text).ok_or_else(bad)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(bad)
}

/// A size that a socket option can take.
pub(super) fn socket_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if (1..=SOCKET_SIZE_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("\"{text}\" is out of range; expected \"1B\" to \"1GiB\"")),
    }
}

/// Permissions of a socket file, octal: `"0660"`.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("\"{text}\" is no file mode; expected octal digits such as \"0660\""))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// Ten years: beyond, sums of instants and durations would need care everywhere.
const DURATION_MS_MAX: u64 = 10 * 365 * 86_400_000;

const SOCKET_SIZE_MAX: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "5", "s", "-5s", "5.5s", "5 sec", "99999999999999999999s", "99999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_or_off("off"), Ok(None));
        assert!(duration_above_zero("0s").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        for bad in ["", "1", "1M", "MiB", "-1B", "99999999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(socket_size("128KiB"), Ok(131_072));
        assert!(socket_size("0B").is_err());
        assert!(socket_size("8GiB").is_err());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        for bad in ["", "0888", "10000", "+660", "rw"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
