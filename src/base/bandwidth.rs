//! How much may be sent a second, as people write it: in bits or in bytes, and never in doubt which.

use std::fmt;
use std::str::FromStr;

use super::limits;

/// Bytes a second that may be sent, never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth(u64);

/// The units that are understood, with what one of them is in bits. Those of bits first, largest first: the first that
/// divides a bandwidth is how it is shown.
const UNITS: [(&str, u128); 11] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1000),
    ("bit/s", 1),
    ("GiB/s", 8 << 30),
    ("MiB/s", 8 << 20),
    ("KiB/s", 8 << 10),
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8000),
    ("B/s", 8),
];

/// Digits behind the point that are read.
const FRACTION_DIGITS_MAX: usize = 6;

impl Bandwidth {
    /// So many bytes a second, at least [`limits::BANDWIDTH_BYTES_MIN`].
    #[must_use]
    pub fn from_bytes_per_second(bytes: u64) -> Self {
        Self(bytes.clamp(limits::BANDWIDTH_BYTES_MIN, limits::BANDWIDTH_BYTES_MAX))
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// What may be sent at once after a pause.
    #[must_use]
    pub fn burst_bytes(self) -> f64 {
        (self.0 as f64 * limits::BANDWIDTH_BURST.as_secs_f64()).max(limits::PACED_PACKET_BYTES_MIN as f64)
    }

    /// What one packet should carry, when this is shared by `count`: more would keep urgent bytes waiting behind it.
    #[must_use]
    pub fn packet_bytes(self, count: usize) -> f64 {
        let bytes = self.0 as f64 * limits::BANDWIDTH_PACKET_TIME.as_secs_f64() / count.max(1) as f64;
        bytes.clamp(limits::PACED_PACKET_BYTES_MIN as f64, limits::FRAME_MESSAGE_BYTES_MAX as f64)
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            format!(
                "\"{text}\" is no bandwidth; expected a number and a unit of bits (\"100Mbit/s\", with kbit/s, Mbit/s, Gbit/s) or \
                 of bytes (\"12MiB/s\", with kB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s)"
            )
        };
        let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > FRACTION_DIGITS_MAX {
            return Err(bad());
        }
        let (_, bits) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start_matches(' ')).ok_or_else(bad)?;
        let digits = u32::try_from(fraction.len()).map_err(|_| bad())?;
        let (whole, fraction): (u64, u64) = (whole.parse().map_err(|_| bad())?, fraction.parse().map_err(|_| bad())?);
        let scale = 10_u128.pow(digits);
        let bytes = (u128::from(whole) * scale + u128::from(fraction)) * bits / scale / 8;
        let range = u128::from(limits::BANDWIDTH_BYTES_MIN)..=u128::from(limits::BANDWIDTH_BYTES_MAX);
        match u64::try_from(bytes) {
            Ok(bytes) if range.contains(&u128::from(bytes)) => Ok(Self(bytes)),
            _ => {
                Err(format!("\"{text}\" is out of range; expected \"64kbit/s\" to \"1000Gbit/s\", or no limit at all"))
            }
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0) * 8;
        let exact = UNITS.into_iter().find(|(name, unit)| *name != "bit/s" && bits.is_multiple_of(*unit));
        match exact {
            Some((name, unit)) => write!(f, "{} {name}", bits / unit),
            None => write!(f, "{} B/s", self.0),
        }
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_are_told_apart() {
        let bytes = |text: &str| text.parse::<Bandwidth>().map(Bandwidth::bytes_per_second);
        assert_eq!(bytes("100Mbit/s"), Ok(12_500_000));
        assert_eq!(bytes("100 Mbit/s"), Ok(12_500_000));
        assert_eq!(bytes("12MiB/s"), Ok(12 << 20));
        assert_eq!(bytes("12MB/s"), Ok(12_000_000));
        assert_eq!(bytes("2.5Gbit/s"), Ok(312_500_000));
        assert_eq!(bytes("64kbit/s"), Ok(8000));
        assert_eq!(bytes("1000Gbit/s"), Ok(125_000_000_000));
    }

    #[test]
    fn what_could_mean_either_is_refused_with_what_is_accepted() {
        for bad in ["", "100", "100M", "100Mbps", "100mbit/s", "100MB", "100Mb/s", "Mbit/s", "-1Mbit/s", "1.Mbit/s"] {
            let error = bad.parse::<Bandwidth>().unwrap_err();
            assert!(error.contains("100Mbit/s") && error.contains("12MiB/s"), "{bad}: {error}");
        }
        for bad in ["0Mbit/s", "63kbit/s", "1001Gbit/s", "99999999999999999GiB/s"] {
            let error = bad.parse::<Bandwidth>().unwrap_err();
            assert!(error.contains("64kbit/s"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for (text, shown) in [
            ("100Mbit/s", "100 Mbit/s"),
            ("12MiB/s", "12 MiB/s"),
            ("2.5Gbit/s", "2500 Mbit/s"),
            ("8001B/s", "8001 B/s"),
        ] {
            let bandwidth: Bandwidth = text.parse().unwrap();
            assert_eq!(bandwidth.to_string(), shown);
            assert_eq!(shown.parse(), Ok(bandwidth));
        }
    }
}
