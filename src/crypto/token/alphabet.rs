//! The alphabets of a token's parts: base32 and base64url of RFC 4648, base62 and CRC-32 as secret scanners know them.
//!
//! Strict: a text that is not what the encoder would write is refused, so that a token has one spelling.

/// Writes `bytes` in lower-case base32 (RFC 4648 §6). A multiple of 5 bytes needs no padding.
pub(super) fn base32(bytes: &[u8], out: &mut String) {
    encode(bytes, 5, BASE32, out);
}

/// Writes `bytes` in base64url without padding (RFC 4648 §5).
pub(super) fn base64url(bytes: &[u8], out: &mut String) {
    encode(bytes, 6, BASE64URL, out);
}

/// Writes `number` as 6 digits of base62, which is enough for 32 bits.
pub(super) fn base62(number: u32, out: &mut String) {
    for place in (0..CHECKSUM_CHARS as u32).rev() {
        let digit = u64::from(number) / 62u64.pow(place) % 62;
        out.push(char::from(BASE62[digit as usize]));
    }
}

/// Reads what [`base32`] writes into all of `out`.
pub(super) fn from_base32(text: &str, out: &mut [u8]) -> Option<()> {
    decode(text, 5, BASE32, out)
}

/// Reads what [`base64url`] writes into all of `out`.
pub(super) fn from_base64url(text: &str, out: &mut [u8]) -> Option<()> {
    decode(text, 6, BASE64URL, out)
}

/// CRC-32 of IEEE 802.3: it finds every change of up to 32 bits in a row.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn encode(bytes: &[u8], bits_per_char: u32, alphabet: &[u8], out: &mut String) {
    let (mut bits, mut count) = (0u32, 0);
    let mut put = |bits: u32| out.push(char::from(alphabet[(bits & ((1 << bits_per_char) - 1)) as usize]));
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= bits_per_char {
            count -= bits_per_char;
            put(bits >> count);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        put(bits << (bits_per_char - count));
    }
}

fn decode(text: &str, bits_per_char: u32, alphabet: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut bits, mut count, mut written) = (0u32, 0, 0);
    for character in text.bytes() {
        let value = alphabet.iter().position(|letter| *letter == character)?;
        bits = bits << bits_per_char | value as u32;
        count += bits_per_char;
        if count >= 8 {
            count -= 8;
            *out.get_mut(written)? = (bits >> count) as u8;
            written += 1;
        }
        bits &= (1 << count) - 1;
    }
    // The bits behind the last byte are zeroes, or the text would have several spellings.
    (written == out.len() && count < bits_per_char && bits == 0).then_some(())
}

/// Characters of a checksum.
pub(super) const CHECKSUM_CHARS: usize = 6;

const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE64URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: fn(&[u8], &mut String), bytes: &[u8]) -> String {
        let mut text = String::new();
        write(bytes, &mut text);
        text
    }

    #[test]
    fn known_texts_are_written() {
        // RFC 4648 §10, in lower case and without padding.
        assert_eq!(written(base32, b"fooba"), "mzxw6ytb");
        assert_eq!(written(base64url, b"fooba"), "Zm9vYmE");
        assert_eq!(written(base64url, &[0xfb, 0xff]), "-_8");
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let mut largest = String::new();
        base62(u32::MAX, &mut largest);
        assert_eq!(largest, "4gfFC3");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut read = vec![0; bytes.len()];
            prop_assert_eq!(from_base32(&written(base32, &bytes), &mut read), Some(()));
            prop_assert_eq!(&read, &bytes);
            read.fill(0);
            prop_assert_eq!(from_base64url(&written(base64url, &bytes), &mut read), Some(()));
            prop_assert_eq!(&read, &bytes);
        }

        #[test]
        fn bytes_have_one_spelling(text in "[A-Za-z0-9_-]{43}") {
            let mut bytes = [0; 32];
            if from_base64url(&text, &mut bytes).is_some() {
                prop_assert_eq!(written(base64url, &bytes), text);
            }
        }
    }
}
