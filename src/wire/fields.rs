//! The fields of one flat message, read in one pass without allocation.

use std::ops::Range;

use super::error::WireError;
use super::varint::read_varint;
use crate::base::limits;

/// Field numbers below this one can be in a message's [`Schema`].
const FIELDS_MAX: usize = 22;

/// Which fields a message has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    /// Numbers of the varint fields, as bits.
    pub(super) varints: u32,
    /// Numbers of the length-delimited fields, as bits.
    pub(super) bytes: u32,
    /// Numbers of the fields that may come any number of times, as bits. Who reads the message reads them itself.
    pub(super) repeated: u32,
    /// Fields after which nothing may come, as bits.
    pub(super) last: u32,
    /// Whether fields that are not listed are skipped, or refused.
    pub(super) is_open: bool,
}

impl Schema {
    /// A message of varints only, which later versions may extend.
    pub(super) const fn varints(numbers: u32) -> Self {
        Self { varints: numbers, bytes: 0, repeated: 0, last: 0, is_open: true }
    }
}

/// The bit of a field number.
pub(super) const fn bit(number: u32) -> u32 {
    1 << number
}

/// The fields that were found. Absent varints are 0 and absent byte strings empty, as protobuf has it.
#[derive(Debug, Default)]
pub(super) struct Fields {
    varints: [u64; FIELDS_MAX],
    bytes: [Range<usize>; FIELDS_MAX],
    present: u32,
}

impl Fields {
    /// Reads the fields of a message.
    pub(super) fn read(data: &[u8], schema: Schema) -> Result<Self, WireError> {
        let mut fields = Self::default();
        let mut reader = FieldReader::new(data);
        let mut unknown_count = 0;
        while let Some((number, value)) = reader.next()? {
            if fields.present & schema.last != 0 {
                return Err(WireError::NotLast(u64::from((fields.present & schema.last).trailing_zeros())));
            }
            let known = if number < FIELDS_MAX as u64 { bit(number as u32) } else { 0 };
            if schema.repeated & known != 0 {
                continue;
            }
            if (schema.varints | schema.bytes) & known == 0 {
                if !schema.is_open {
                    return Err(WireError::UnknownField(number));
                }
                unknown_count += 1;
                if unknown_count > limits::UNKNOWN_FIELDS_MAX {
                    return Err(WireError::TooManyUnknown);
                }
                continue;
            }
            if fields.present & known != 0 {
                return Err(WireError::Duplicate(number));
            }
            fields.present |= known;
            match value {
                Value::Varint(value) if schema.varints & known != 0 => fields.varints[number as usize] = value,
                Value::Bytes(range) if schema.bytes & known != 0 => fields.bytes[number as usize] = range,
                _ => return Err(WireError::WireType(number)),
            }
        }
        Ok(fields)
    }

    /// A varint field.
    pub(super) fn varint(&self, number: u32) -> u64 {
        self.varints[number as usize]
    }

    /// A varint field of 32 bits.
    pub(super) fn varint_u32(&self, number: u32, name: &'static str) -> Result<u32, WireError> {
        u32::try_from(self.varint(number)).map_err(|_| WireError::Range(name))
    }

    /// A varint field that is true or false.
    pub(super) fn flag(&self, number: u32, name: &'static str) -> Result<bool, WireError> {
        match self.varint(number) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Range(name)),
        }
    }

    /// A text, without a bound on its size other than the message's.
    pub(super) fn text(&self, data: &[u8], number: u32, name: &'static str) -> Result<String, WireError> {
        std::str::from_utf8(&data[self.range(number)]).map(str::to_owned).map_err(|_| WireError::Text(name))
    }

    /// Where a byte string lies.
    pub(super) fn range(&self, number: u32) -> Range<usize> {
        self.bytes[number as usize].clone()
    }
}

/// The value of one field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Range<usize>),
    /// Four or eight bytes: no field of ours has them, but a later version's might.
    Fixed,
}

/// Reads field after field.
pub(super) struct FieldReader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// The next field's number and value.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value)>, WireError> {
        match self.data[self.position..] {
            [] => Ok(None),
            // Nearly all are so short: read without the checks of longer ones.
            [key @ 0x08..0x80, value @ 0..0x80, ..] if matches!(key & 7, 0 | 2) => {
                self.position += 2;
                let number = u64::from(key >> 3);
                let value = u64::from(value);
                Ok(Some((number, if key & 7 == 0 { Value::Varint(value) } else { Value::Bytes(self.skip(value)?) })))
            }
            _ => self.next_long().map(Some),
        }
    }

    fn next_long(&mut self) -> Result<(u64, Value), WireError> {
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(WireError::UnknownField(number));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let size = self.varint()?;
                Value::Bytes(self.skip(size)?)
            }
            1 => self.skip(8).map(|_| Value::Fixed)?,
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return Err(WireError::WireType(number)),
        };
        Ok((number, value))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, size) = read_varint(&self.data[self.position..])?.ok_or(WireError::Truncated)?;
        self.position += size;
        Ok(value)
    }

    #[inline]
    fn skip(&mut self, size: u64) -> Result<Range<usize>, WireError> {
        let start = self.position;
        if size > (self.data.len() - start) as u64 {
            return Err(WireError::Truncated);
        }
        self.position = start + size as usize;
        Ok(start..self.position)
    }
}
