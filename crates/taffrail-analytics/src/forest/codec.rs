//! Bytes of models for the database: the same on every platform, versioned, and checked before they are read.
//!
//! An envelope is four bytes of kind, a version, the FNV-1a checksum (64 bits, little endian) of the rest, and the rest.
//! Numbers inside are little endian, or LEB128 where they are small as a rule.

/// Kind, version, checksum.
const HEADER_BYTES: usize = 13;

/// Why bytes are not what they are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// They end too early.
    Short,
    /// They are something else.
    Kind,
    /// Another version of the format: the one found, the one known.
    Version(u8, u8),
    /// The checksum is not that of the content.
    Damaged,
    /// The checksum is right and the content impossible: what is wrong with it.
    Invalid(&'static str),
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("model is cut short"),
            Self::Kind => f.write_str("bytes are no model of this kind"),
            Self::Version(found, known) => {
                write!(f, "model has format {found}, known is {known}; hint: it is trained anew on schedule")
            }
            Self::Damaged => f.write_str("model is damaged: its checksum is wrong"),
            Self::Invalid(what) => write!(f, "model is impossible: {what}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Gives the content its envelope.
pub(crate) fn seal(kind: [u8; 4], version: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.extend_from_slice(&kind);
    bytes.push(version);
    bytes.extend_from_slice(&checksum(content).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The content of an envelope.
pub(crate) fn open(kind: [u8; 4], version: u8, bytes: &[u8]) -> Result<Reader<'_>, CodecError> {
    let (header, content) = bytes.split_at_checked(HEADER_BYTES).ok_or(CodecError::Short)?;
    if header[..4] != kind {
        return Err(CodecError::Kind);
    }
    if header[4] != version {
        return Err(CodecError::Version(header[4], version));
    }
    if header[5..] != checksum(content).to_le_bytes() {
        return Err(CodecError::Damaged);
    }
    Ok(Reader(content))
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Appends what [`Reader`] reads.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn fixed_u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// LEB128.
    pub(crate) fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.uint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Takes numbers from the front of bytes.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn fixed_u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number that is one.
    pub(crate) fn f32(&mut self) -> Result<f32, CodecError> {
        let value = f32::from_le_bytes(self.array()?);
        if value.is_finite() { Ok(value) } else { Err(CodecError::Invalid("a number is not finite")) }
    }

    /// A number that is one.
    pub(crate) fn f64(&mut self) -> Result<f64, CodecError> {
        let value = f64::from_le_bytes(self.array()?);
        if value.is_finite() { Ok(value) } else { Err(CodecError::Invalid("a number is not finite")) }
    }

    /// LEB128 of at most 64 bits.
    pub(crate) fn uint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid("a count has more than 64 bits"))
    }

    /// A count that may not be over the limit.
    pub(crate) fn count(&mut self, limit: usize) -> Result<usize, CodecError> {
        let value = self.uint()?;
        match usize::try_from(value) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(CodecError::Invalid("a count is over its limit")),
        }
    }

    /// A text of at most so many bytes.
    pub(crate) fn text(&mut self, limit: usize) -> Result<&'a str, CodecError> {
        let count = self.count(limit)?;
        std::str::from_utf8(self.take(count)?).map_err(|_| CodecError::Invalid("a text is not UTF-8"))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Invalid("something follows the end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, wide: u64, real in -1e30_f32..1e30, text in ".{0,20}") {
            let mut writer = Writer::default();
            writer.uint(number);
            writer.fixed_u64(wide);
            writer.f32(real);
            writer.text(&text);
            let bytes = seal(*b"TEST", 3, &writer.0);
            let mut reader = open(*b"TEST", 3, &bytes).unwrap();
            prop_assert_eq!(reader.uint(), Ok(number));
            prop_assert_eq!(reader.fixed_u64(), Ok(wide));
            prop_assert_eq!(reader.f32(), Ok(real));
            prop_assert_eq!(reader.text(80), Ok(text.as_str()));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader(&bytes);
            while reader.uint().is_ok() && reader.text(8).is_ok() {}
            prop_assert!(open(*b"TEST", 3, &bytes).is_err());
        }
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let bytes = seal(*b"TEST", 3, b"content");
        let error = |bytes: &[u8]| open(*b"TEST", 3, bytes).err();
        assert_eq!(error(&bytes), None);
        assert_eq!(error(&bytes[..12]), Some(CodecError::Short));
        assert_eq!(error(&bytes[..bytes.len() - 1]), Some(CodecError::Damaged));
        assert_eq!(open(*b"ELSE", 3, &bytes).err(), Some(CodecError::Kind));
        assert_eq!(open(*b"TEST", 4, &bytes).err(), Some(CodecError::Version(3, 4)));
        for place in 5..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            assert_eq!(error(&damaged), Some(CodecError::Damaged), "byte {place}");
        }
    }
}
