//! What a payload says: when it was due, and which event of which channel it is.

use memchr::memchr;

/// `~`, 16 hex digits of time, 8 of the number, 8 of the channel; then what fills it up.
pub const LEN: usize = 1 + 16 + 8 + 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds of [`crate::clock::now`].
    pub at: u64,
    /// 1 for the channel's first.
    pub number: u32,
    pub channel: u32,
}

impl Stamp {
    pub fn write(self, size: usize, into: &mut Vec<u8>) {
        use std::io::Write;
        let end = into.len() + size.max(LEN);
        write!(into, "~{:016x}{:08x}{:08x}", self.at, self.number, self.channel).expect("a Vec takes all");
        into.resize(end, b'x');
    }

    /// Finds the stamp in a line. None if there is none, or if the payload is not of this size.
    pub fn read(line: &[u8], size: usize) -> Option<Self> {
        let payload = line.get(memchr(b'~', line)?..)?;
        // Some servers send it as a JSON string.
        let payload = payload.strip_suffix(b"\"").unwrap_or(payload);
        if payload.len() != size.max(LEN) || payload[LEN..].iter().any(|byte| *byte != b'x') {
            return None;
        }
        Some(Self {
            at: hex(&payload[1..17])?,
            number: hex(&payload[17..25])? as u32,
            channel: hex(&payload[25..33])? as u32,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let stamp = Stamp { at: 0x0123_4567_89ab_cdef, number: 7, channel: 499 };
        let mut line = b"data: ".to_vec();
        stamp.write(256, &mut line);
        assert_eq!(line.len(), 6 + 256);
        assert_eq!(Stamp::read(&line, 256), Some(stamp));
        assert_eq!(Stamp::read(&line[..line.len() - 1], 256), None, "one byte is missing");
        line[100] = b'y';
        assert_eq!(Stamp::read(&line, 256), None, "one byte is another");
        assert_eq!(Stamp::read(b"data: {\"client\":1}", 256), None);
    }
}
