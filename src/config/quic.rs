//! Options of QUIC channels, which listeners and links share: the table `quic` of a section.

use std::str::FromStr;

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use super::{file, values};
use crate::channel::{QuicCongestion, QuicOptions, RetryPolicy};

/// The options; what is not said is as [`QuicOptions::default`] has it.
pub(super) fn resolve(table: Option<&Spanned<file::Quic>>, problems: &mut Problems) -> QuicOptions {
    let default = QuicOptions::default();
    let Some(keys) = table.map(Spanned::get_ref) else { return default };
    let size = |text: &str| small_size(text);
    let mtu = |key: &file::Number, problems: &mut Problems| {
        key.as_ref().map(|given| number(Some(given), MTU_BYTES, *MTU_BYTES.start(), problems) as u16)
    };
    let mtu_initial = mtu(&keys.mtu_initial, problems).unwrap_or(default.mtu_initial_bytes);
    let mtu_max = mtu(&keys.mtu_max, problems);
    if let Some((max, key)) = mtu_max.zip(keys.mtu_max.as_ref())
        && MTU_BYTES.contains(key.get_ref())
        && max < mtu_initial
    {
        let message = format!("mtu_max is {max} bytes, below mtu_initial with {mtu_initial}");
        problems.push(Problem::new(message).at(key.span()));
    }
    QuicOptions {
        congestion: value(keys.congestion.as_ref(), str::parse, default.congestion, problems),
        initial_window_bytes: value(
            keys.initial_window.as_ref(),
            |text| size(text).map(u64::from),
            default.initial_window_bytes,
            problems,
        ),
        initial_rtt: value(keys.initial_rtt.as_ref(), values::duration_above_zero, default.initial_rtt, problems),
        mtu_initial_bytes: mtu_initial,
        mtu_max_bytes: mtu_max,
        keepalive: value(keys.keepalive.as_ref(), values::duration_or_off, default.keepalive, problems),
        idle_timeout: value(keys.idle_timeout.as_ref(), values::duration_above_zero, default.idle_timeout, problems),
        lane_count: number(keys.lanes.as_ref(), 1..=16, default.lane_count, problems),
        send_buffer_bytes: value(keys.send_buffer.as_ref(), size, default.send_buffer_bytes, problems),
        receive_buffer_bytes: value(keys.receive_buffer.as_ref(), size, default.receive_buffer_bytes, problems),
        segmentation_offload: keys.gso.unwrap_or(default.segmentation_offload),
        endpoint_count: number(keys.endpoints.as_ref(), 1..=256, default.endpoint_count, problems),
        retry: value(keys.retry.as_ref(), str::parse, default.retry, problems),
        mark: None,
        bind: None,
    }
}

fn small_size(text: &str) -> Result<u32, String> {
    let bytes = values::size(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (1..=SIZE_BYTES_MAX).contains(bytes))
        .ok_or_else(|| format!("\"{text}\" is out of range; expected 1 byte to 1GiB"))
}

impl FromStr for QuicCongestion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cubic" => Ok(Self::Cubic),
            "bbr" => Ok(Self::Bbr),
            "new-reno" => Ok(Self::NewReno),
            other => Err(format!("{other:?} is not known; expected auto, cubic, bbr or new-reno")),
        }
    }
}

impl FromStr for RetryPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(format!("{other:?} is not known; expected auto, always or never")),
        }
    }
}

/// UDP payloads: what QUIC needs (RFC 9000 §14) to what UDP over IPv4 has room for.
const MTU_BYTES: std::ops::RangeInclusive<u32> = 1200..=65_507;

/// More than any socket buffer is good for.
const SIZE_BYTES_MAX: u32 = 1 << 30;
