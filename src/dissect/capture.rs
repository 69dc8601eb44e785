//! Reads captures: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), of either byte order, packet by
//! packet. What a packet holds is for [`segment`](super::segment).
//!
//! A reader of our own: what is needed of both formats is this file, and a capture comes from anybody.

use std::io::{self, Read};
use std::time::Duration;

/// A packet as it was captured, and a block of pcapng around it. Loopback interfaces have packets of 64 KiB, and programs
/// capture up to 256 KiB of each.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// Interfaces of one section.
const INTERFACES_MAX: usize = 1024;

/// Why a capture cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The system did not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("it is neither pcap nor pcapng")]
    Format,
    /// The file contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The file ends in the middle of something, as when the capturing program was killed.
    #[error("it ends in the middle of a packet")]
    Cut,
}

/// A packet of a capture.
#[derive(Debug)]
pub struct Packet<'a> {
    /// When, since 1970.
    pub time: Duration,
    /// What the data begin with (<https://www.tcpdump.org/linktypes.html>).
    pub link_type: u32,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Size of the whole packet, in bytes.
    pub len: u32,
}

/// Reads a capture.
#[derive(Debug)]
pub struct Capture<R> {
    reader: R,
    order: Order,
    format: Format,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
}

#[derive(Debug)]
enum Format {
    Pcap { link_type: u32, nanoseconds_per_unit: u32 },
    PcapNg { interfaces: Vec<Interface> },
}

/// What a section says of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u32,
    units_per_second: u64,
    offset_s: i64,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Result<u16, CaptureError> {
        let bytes = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).ok_or(TOO_SHORT)?;
        Ok(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Result<u32, CaptureError> {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(TOO_SHORT)?;
        Ok(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }
}

impl<R: Read> Capture<R> {
    /// Reads what a capture begins with.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn new(mut reader: R) -> Result<Self, CaptureError> {
        let mut start = [0; 4];
        if !fill(&mut reader, &mut start)? {
            return Err(CaptureError::Format);
        }
        let mut capture = Self {
            reader,
            order: Order::Little,
            format: Format::PcapNg { interfaces: Vec::new() },
            buffer: Vec::new(),
        };
        match start {
            [0xd4, 0xc3, 0xb2, 0xa1] => capture.begin_pcap(Order::Little, 1000)?,
            [0xa1, 0xb2, 0xc3, 0xd4] => capture.begin_pcap(Order::Big, 1000)?,
            [0x4d, 0x3c, 0xb2, 0xa1] => capture.begin_pcap(Order::Little, 1)?,
            [0xa1, 0xb2, 0x3c, 0x4d] => capture.begin_pcap(Order::Big, 1)?,
            SECTION => capture.begin_section()?,
            _ => return Err(CaptureError::Format),
        }
        Ok(capture)
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError`]; it cannot be read on.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        match self.format {
            Format::Pcap { link_type, nanoseconds_per_unit } => self.next_of_pcap(link_type, nanoseconds_per_unit),
            Format::PcapNg { .. } => self.next_of_pcapng(),
        }
    }

    // ---- pcap ----

    fn begin_pcap(&mut self, order: Order, nanoseconds_per_unit: u32) -> Result<(), CaptureError> {
        let mut header = [0; 20];
        self.read_exact(&mut header)?;
        self.order = order;
        // The upper bits say how many bytes of checksum follow each packet, which changes nothing here.
        let link_type = order.u32(&header, 16)? & 0x0fff_ffff;
        self.format = Format::Pcap { link_type, nanoseconds_per_unit };
        Ok(())
    }

    fn next_of_pcap(&mut self, link_type: u32, unit: u32) -> Result<Option<Packet<'_>>, CaptureError> {
        let mut header = [0; 16];
        if !fill(&mut self.reader, &mut header)? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.order.u32(&header, 0)?, self.order.u32(&header, 4)?);
        let (captured, len) = (self.order.u32(&header, 8)?, self.order.u32(&header, 12)?);
        self.read_buffer(captured)?;
        let time = Duration::from_secs(u64::from(seconds))
            + Duration::from_nanos(u64::from(fraction).saturating_mul(u64::from(unit)));
        Ok(Some(Packet { time, link_type, data: &self.buffer, len }))
    }

    // ---- pcapng ----

    /// The rest of a section header block, behind its type: it says the byte order.
    fn begin_section(&mut self) -> Result<(), CaptureError> {
        let mut start = [0; 8];
        self.read_exact(&mut start)?;
        self.order = match start[4..] {
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            _ => return Err(CaptureError::Damaged("a section without a byte order")),
        };
        let len = self.order.u32(&start, 0)?;
        self.skip(len.checked_sub(12).ok_or(TOO_SHORT)?)?;
        self.format = Format::PcapNg { interfaces: Vec::new() };
        Ok(())
    }

    fn next_of_pcapng(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        loop {
            let mut kind = [0; 4];
            if !fill(&mut self.reader, &mut kind)? {
                return Ok(None);
            }
            if kind == SECTION {
                self.begin_section()?;
                continue;
            }
            let kind = self.order.u32(&kind, 0)?;
            let mut size = [0; 4];
            self.read_exact(&mut size)?;
            let size = self.order.u32(&size, 0)?.checked_sub(8).ok_or(TOO_SHORT)?;
            match kind {
                INTERFACE => {
                    self.read_buffer(size)?;
                    self.add_interface()?;
                }
                ENHANCED_PACKET | SIMPLE_PACKET => {
                    self.read_buffer(size)?;
                    return self.packet_of_block(kind).map(Some);
                }
                _ => self.skip(size)?,
            }
        }
    }

    fn add_interface(&mut self) -> Result<(), CaptureError> {
        let (order, body) = (self.order, &self.buffer);
        let mut interface =
            Interface { link_type: u32::from(order.u16(body, 0)?), units_per_second: 1_000_000, offset_s: 0 };
        let mut at = 8;
        while let (Ok(code), Ok(len)) = (order.u16(body, at), order.u16(body, at + 2)) {
            let Some(value) = body.get(at + 4..at + 4 + usize::from(len)).filter(|_| code != 0) else { break };
            match (code, value) {
                (9, [resolution]) => interface.units_per_second = units_per_second(*resolution)?,
                (14, [_, _, _, _, _, _, _, _]) => {
                    let (low, high) = (u64::from(order.u32(value, 0)?), u64::from(order.u32(value, 4)?));
                    interface.offset_s = match order {
                        Order::Little => (high << 32 | low) as i64,
                        Order::Big => (low << 32 | high) as i64,
                    };
                }
                _ => {}
            }
            at += 4 + usize::from(len).next_multiple_of(4);
        }
        let Format::PcapNg { interfaces } = &mut self.format else { return Ok(()) };
        if interfaces.len() == INTERFACES_MAX {
            return Err(CaptureError::Damaged("too many interfaces"));
        }
        interfaces.push(interface);
        Ok(())
    }

    fn packet_of_block(&self, kind: u32) -> Result<Packet<'_>, CaptureError> {
        let (order, body) = (self.order, &self.buffer);
        let Format::PcapNg { interfaces } = &self.format else { return Err(CaptureError::Format) };
        let interface = |index: u32| interfaces.get(index as usize).copied().ok_or(NO_INTERFACE);
        if kind == SIMPLE_PACKET {
            let (interface, len) = (interface(0)?, order.u32(body, 0)?);
            // Behind the data are padding and the block's size again.
            let captured = (len as usize).min(body.len().saturating_sub(8));
            let data = body.get(4..4 + captured).ok_or(TOO_SHORT)?;
            return Ok(Packet { time: Duration::ZERO, link_type: interface.link_type, data, len });
        }
        let interface = interface(order.u32(body, 0)?)?;
        let units = u64::from(order.u32(body, 4)?) << 32 | u64::from(order.u32(body, 8)?);
        let (captured, len) = (order.u32(body, 12)?, order.u32(body, 16)?);
        let data = usize::try_from(captured).ok().and_then(|captured| body.get(20..20usize.checked_add(captured)?));
        Ok(Packet { time: interface.time(units), link_type: interface.link_type, data: data.ok_or(TOO_SHORT)?, len })
    }

    // ---- Bytes ----

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), CaptureError> {
        if fill(&mut self.reader, bytes)? { Ok(()) } else { Err(CaptureError::Cut) }
    }

    /// Reads so many bytes into the buffer, which grows with what is there and not with what is said.
    fn read_buffer(&mut self, size: u32) -> Result<(), CaptureError> {
        if size > PACKET_BYTES_MAX {
            return Err(CaptureError::Damaged("a packet that is too large"));
        }
        self.buffer.clear();
        let read = self.reader.by_ref().take(u64::from(size)).read_to_end(&mut self.buffer)?;
        if read == size as usize { Ok(()) } else { Err(CaptureError::Cut) }
    }

    fn skip(&mut self, size: u32) -> Result<(), CaptureError> {
        let skipped = io::copy(&mut self.reader.by_ref().take(u64::from(size)), &mut io::sink())?;
        if skipped == u64::from(size) { Ok(()) } else { Err(CaptureError::Cut) }
    }
}

impl Interface {
    fn time(&self, units: u64) -> Duration {
        let seconds = units / self.units_per_second;
        let rest = u128::from(units % self.units_per_second) * 1_000_000_000 / u128::from(self.units_per_second);
        Duration::new(seconds.saturating_add_signed(self.offset_s), u32::try_from(rest).unwrap_or(0))
    }
}

/// A negative power of 10, or of 2 if the upper bit is set.
fn units_per_second(resolution: u8) -> Result<u64, CaptureError> {
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(resolution & 0x7f)).ok_or(CaptureError::Damaged("a resolution of time that is too fine"))
}

/// Fills the bytes; `false` when nothing more came at all.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> Result<bool, CaptureError> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(CaptureError::Cut),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// The section header block reads the same in both byte orders.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Types of blocks: interface description, enhanced packet, simple packet.
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const SIMPLE_PACKET: u32 = 3;

const TOO_SHORT: CaptureError = CaptureError::Damaged("a block that is too short");
const NO_INTERFACE: CaptureError = CaptureError::Damaged("a packet of an interface that is not there");

#[cfg(test)]
mod tests {
    use super::*;

    fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(4), 0);
        let number = |value: u32| match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        };
        let size = number(padded.len() as u32 + 12);
        [&number(kind)[..], &size, &padded, &size].concat()
    }

    fn packets(bytes: &[u8]) -> Result<Vec<(Duration, u32, Vec<u8>)>, CaptureError> {
        let mut capture = Capture::new(bytes)?;
        let mut found = Vec::new();
        while let Some(packet) = capture.next_packet()? {
            found.push((packet.time, packet.link_type, packet.data.to_vec()));
        }
        Ok(found)
    }

    fn pcapng(order: Order) -> Vec<u8> {
        let n16 = |value: u16| match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        };
        let n32 = |value: u32| match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        };
        let section = [&n32(0x1a2b_3c4d)[..], &n16(1), &n16(0), &[0xff; 8]].concat();
        // Nanoseconds, by an option behind one that is not known.
        let interface = [
            &n16(1)[..],
            &n16(0),
            &n32(0),
            &n16(2),
            &n16(2),
            b"lo\0\0",
            &n16(9),
            &n16(1),
            &[9, 0, 0, 0],
            &n16(0),
            &n16(0),
        ];
        let units = 5_000_000_007u64;
        let (high, low) = ((units >> 32) as u32, units as u32);
        let enhanced = [&n32(0)[..], &n32(high), &n32(low), &n32(3), &n32(9), b"abc"].concat();
        let simple = [&n32(2)[..], b"de"].concat();
        let mut file = block(order, 0x0a0d_0d0a, &section);
        file.extend(block(order, INTERFACE, &interface.concat()));
        file.extend(block(order, 0x0bad_0bad, b"something else"));
        file.extend(block(order, ENHANCED_PACKET, &enhanced));
        file.extend(block(order, SIMPLE_PACKET, &simple));
        file
    }

    #[test]
    fn both_formats_are_read_in_both_byte_orders() {
        for order in [Order::Little, Order::Big] {
            let found = packets(&pcapng(order)).unwrap();
            assert_eq!(found[0], (Duration::new(5, 7), 1, b"abc".to_vec()));
            assert_eq!(found[1], (Duration::ZERO, 1, b"de".to_vec()));
        }
        for (magic, nanoseconds) in [(0xa1b2_c3d4_u32, 7000), (0xa1b2_3c4d, 7)] {
            let numbers = [0, 0, 0, 65535, 101, 5, 7, 3, 9];
            let little: Vec<u8> = [magic].into_iter().chain(numbers).flat_map(u32::to_le_bytes).collect();
            let big: Vec<u8> = [magic].into_iter().chain(numbers).flat_map(u32::to_be_bytes).collect();
            for mut file in [little, big] {
                file.extend(b"abc");
                assert_eq!(packets(&file).unwrap(), [(Duration::new(5, nanoseconds), 101, b"abc".to_vec())]);
            }
        }
    }

    #[test]
    fn a_capture_that_was_cut_off_is_told_from_one_that_ended() {
        let file = pcapng(Order::Little);
        for len in 0..file.len() {
            // Nothing is wrong with an end between two blocks.
            if let Err(error) = packets(&file[..len]) {
                assert!(matches!(error, CaptureError::Cut | CaptureError::Format), "{len}: {error:?}");
            }
        }
        assert!(matches!(packets(&file[..file.len() - 1]), Err(CaptureError::Cut)));
    }

    #[test]
    fn sizes_that_cannot_be_are_not_believed() {
        let mut file: Vec<u8> = [0xa1b2_c3d4_u32, 0, 0, 0, 65535, 101].into_iter().flat_map(u32::to_le_bytes).collect();
        file.extend([0, 0, u32::MAX, u32::MAX].into_iter().flat_map(u32::to_le_bytes));
        assert!(matches!(packets(&file), Err(CaptureError::Damaged(_))));
    }
}
