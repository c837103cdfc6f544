//! How frames stand on a connection: as they are, or as the chunks of an HTTP/1.1 body (RFC 9112, section 7.1).
//!
//! A server that writes a stream to its socket itself has to frame it. It is done where frames are put down, once for
//! all who read them, so that nothing is formatted for each client.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

/// Room for the length of a chunk and the ends of its lines.
const FRAME: usize = 2 * size_of::<usize>() + 4;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    /// Whoever writes them to the connection frames them, if that is needed.
    #[default]
    Bare,
    /// Each piece is a chunk, or several.
    Chunked,
}

impl Framing {
    /// What is to be sent, framed.
    pub(crate) fn frame(self, bytes: Bytes) -> Bytes {
        // An empty chunk would be the end.
        if self == Self::Bare || bytes.is_empty() {
            return bytes;
        }
        let mut chunk = BytesMut::with_capacity(bytes.len() + FRAME).writer();
        // A buffer that grows takes everything.
        let _ = write!(chunk, "{:x}\r\n", bytes.len());
        let mut chunk = chunk.into_inner();
        chunk.extend_from_slice(&bytes);
        chunk.extend_from_slice(b"\r\n");
        chunk.freeze()
    }

    /// What stands behind all that is sent.
    pub(crate) fn end(self) -> Option<Bytes> {
        (self == Self::Chunked).then_some(Bytes::from_static(b"0\r\n\r\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_its_length_in_hexadecimal() {
        assert_eq!(Framing::Chunked.frame("hello".into()), "5\r\nhello\r\n");
        let long = Framing::Chunked.frame(vec![b'x'; 0x1_2af].into());
        assert!(long.starts_with(b"12af\r\nxxx") && long.ends_with(b"xxx\r\n"));
        assert_eq!(long.len(), 0x1_2af + 8);
    }

    #[test]
    fn what_is_bare_stays_as_it_is_and_nothing_ends_a_body_by_mistake() {
        assert_eq!((Framing::Bare.frame("hello".into()), Framing::Bare.end()), ("hello".into(), None));
        assert_eq!(Framing::Chunked.frame(Bytes::new()), "");
        assert_eq!(Framing::Chunked.end(), Some("0\r\n\r\n".into()));
    }
}
