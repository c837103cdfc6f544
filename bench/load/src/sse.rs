//! The body of a stream: chunks (RFC 9112) to lines of Server-Sent Events. No more than a well-formed server needs.

use memchr::memchr;

/// Takes the chunks apart.
#[derive(Debug)]
pub enum Chunks {
    /// The body is not chunked.
    None,
    /// In the line before a chunk.
    Size { size: usize, extension: bool },
    /// In a chunk: what is left of it.
    Data(usize),
    /// In the line end behind it: bytes left.
    End(u8),
    /// After the last.
    Over,
}

impl Chunks {
    pub fn new(chunked: bool) -> Self {
        if chunked { Self::Size { size: 0, extension: false } } else { Self::None }
    }

    pub fn over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Hands over each piece of the content in `bytes`.
    pub fn take(&mut self, mut bytes: &[u8], mut content: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            match self {
                Self::None => {
                    content(bytes);
                    return;
                }
                Self::Over => return,
                Self::Data(left) => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(*left));
                    content(piece);
                    *left -= piece.len();
                    bytes = rest;
                    if *left == 0 {
                        *self = Self::End(2);
                    }
                }
                Self::End(left) => {
                    let skip = bytes.len().min(usize::from(*left));
                    *left -= skip as u8;
                    bytes = &bytes[skip..];
                    if *left == 0 {
                        *self = Self::Size { size: 0, extension: false };
                    }
                }
                Self::Size { size, extension } => {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    match (byte as char).to_digit(16) {
                        _ if byte == b'\n' => *self = if *size == 0 { Self::Over } else { Self::Data(*size) },
                        Some(digit) if !*extension => *size = *size << 4 | digit as usize,
                        _ => *extension = true,
                    }
                }
            }
        }
    }
}

/// Puts lines together. Empty between two events, so that an idle stream costs nothing.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    pub fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.begun.is_empty() {
                line(&bytes[..end]);
            } else {
                self.begun.extend_from_slice(&bytes[..end]);
                line(&self.begun);
                self.begun = Vec::new();
            }
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]], chunked: bool) -> (Vec<String>, bool) {
        let (mut chunks, mut lines, mut read) = (Chunks::new(chunked), Lines::default(), Vec::new());
        for piece in pieces {
            chunks.take(piece, |content| {
                lines.take(content, |line| read.push(String::from_utf8_lossy(line).into_owned()));
            });
        }
        (read, chunks.over())
    }

    #[test]
    fn a_stream_reads_the_same_wherever_it_is_cut() {
        let stream = b"6;a=f\r\ndata: \r\n8\r\none\n\ndat\r\n7\r\na: two\n\r\n0\r\n\r\n";
        let expected = (vec!["data: one".into(), String::new(), "data: two".into()], true);
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(lines(&[a, b], true), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(lines(&bytes, true), expected);
    }

    #[test]
    fn a_body_that_is_not_chunked_is_taken_as_it_is() {
        assert_eq!(lines(&[b"data: 1", b"0\n"], false), (vec!["data: 10".into()], false));
    }
}
