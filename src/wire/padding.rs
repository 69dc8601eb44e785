//! How much a packet is padded: inside the seal, once, after its frames were gathered.

use std::fmt;
use std::str::FromStr;

use super::varint::varint_len;

/// Sizes that packets are padded to. Sizes count the content of the seal: frames and padding, without header and tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingPolicy {
    /// Packets have the size of their frames.
    None,
    /// To multiples of 32 bytes.
    #[default]
    Block32,
    /// To multiples of 48 bytes.
    Block48,
    /// To multiples of 64 bytes.
    Block64,
    /// To sizes whose lowest bits are zero: at most 12 % more, O(log log n) bits told (Nikitin et al., PETS 2019).
    Padme,
    /// To this many bytes; larger packets to multiples of it.
    Constant(u16),
}

/// Smallest size of [`PaddingPolicy::Constant`]: below, its own headers would be most of it.
const CONSTANT_MIN: u16 = 64;

impl PaddingPolicy {
    /// The padded size of `len` bytes of frames, at most `len_max`. Either the size itself or at least two bytes more,
    /// as the padding is a field with key and length.
    #[must_use]
    pub fn padded_len(self, len: usize, len_max: usize) -> usize {
        let next = |at_least: usize| match self {
            Self::None => at_least,
            Self::Block32 => at_least.next_multiple_of(32),
            Self::Block48 => at_least.next_multiple_of(48),
            Self::Block64 => at_least.next_multiple_of(64),
            Self::Padme => padme(at_least),
            // One size for empty packets too, or they would show; and no division by a size of 0, which only code can
            // give.
            Self::Constant(size) => at_least.max(1).next_multiple_of(usize::from(size).max(1)),
        };
        if matches!(self, Self::None) || next(len) == len {
            return len;
        }
        let mut padded = next(len + 1);
        while !is_representable(padded - len) {
            padded = next(padded + 1);
        }
        if padded <= len_max {
            return padded;
        }
        // No room for a whole step: as far as it goes.
        (len + 2..=len_max).rev().find(|size| is_representable(size - len)).unwrap_or(len)
    }
}

/// Zeroes in a padding field that takes `len` bytes with its key and length.
pub(super) fn zeroes_for(len: usize) -> usize {
    (1..=3)
        .map(|size_len| len.saturating_sub(1 + size_len))
        .find(|zeroes| 1 + varint_len(*zeroes as u64) + zeroes == len)
        .unwrap_or(0)
}

/// Whether a padding field can take exactly this many bytes: not where its length field grows.
fn is_representable(len: usize) -> bool {
    len >= 2 && 1 + varint_len(zeroes_for(len) as u64) + zeroes_for(len) == len
}

fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let mantissa_bits = exponent.checked_ilog2().map_or(0, |bits| bits + 1);
    let zero_bits = exponent.saturating_sub(mantissa_bits);
    len.next_multiple_of(1 << zero_bits)
}

impl fmt::Display for PaddingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Block32 => f.write_str("block-32"),
            Self::Block48 => f.write_str("block-48"),
            Self::Block64 => f.write_str("block-64"),
            Self::Padme => f.write_str("padme"),
            Self::Constant(size) => write!(f, "constant:{size}"),
        }
    }
}

impl FromStr for PaddingPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "block-32" => Self::Block32,
            "block-48" => Self::Block48,
            "block-64" => Self::Block64,
            "padme" => Self::Padme,
            _ => {
                let size = text.strip_prefix("constant:").and_then(|size| size.parse().ok());
                match size {
                    Some(size) if size >= CONSTANT_MIN => Self::Constant(size),
                    Some(_) => return Err(format!("a constant size is at least {CONSTANT_MIN} bytes")),
                    None => {
                        return Err(format!(
                            "expected none, block-32, block-48, block-64, padme or constant:SIZE, not {text:?}"
                        ));
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 65_000;

    #[test]
    fn blocks_give_multiples_and_at_most_two_blocks_more() {
        for (policy, block) in
            [(PaddingPolicy::Block32, 32), (PaddingPolicy::Block48, 48), (PaddingPolicy::Block64, 64)]
        {
            for len in 0..5000 {
                let padded = policy.padded_len(len, MAX);
                assert_eq!(padded % block, 0, "{policy} {len}");
                assert!(padded >= len && padded < len + 2 * block, "{policy} {len} {padded}");
                assert!(padded == len || is_representable(padded - len));
            }
        }
    }

    #[test]
    fn padme_adds_at_most_twelve_percent() {
        for len in 64..60_000 {
            let padded = PaddingPolicy::Padme.padded_len(len, MAX);
            assert!(padded as f64 <= len as f64 * 1.12 + 3.0, "{len} {padded}");
        }
    }

    #[test]
    fn constant_gives_one_size_and_the_limit_holds() {
        for len in 0..=1398 {
            // No padding field takes 130 bytes.
            assert_eq!(
                PaddingPolicy::Constant(1400).padded_len(len, MAX),
                if len == 1270 { 2800 } else { 1400 },
                "{len}"
            );
        }
        for len in MAX - 40..=MAX {
            let padded = PaddingPolicy::Block64.padded_len(len, MAX);
            assert!(padded >= len && padded <= MAX);
        }
    }

    #[test]
    fn names_read_back() {
        for name in ["none", "block-32", "block-48", "block-64", "padme", "constant:1400"] {
            assert_eq!(name.parse::<PaddingPolicy>().map(|policy| policy.to_string()).as_deref(), Ok(name));
        }
        assert!("constant:1".parse::<PaddingPolicy>().is_err());
    }
}
