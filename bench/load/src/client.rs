//! One stream, and what must come by it.

use std::io::{self, Read, Write};

use memchr::memchr;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry};

use crate::clock;
use crate::sse::{Chunks, Lines};
use crate::stamp::Stamp;
use crate::tally::Tally;

pub struct Client {
    stream: TcpStream,
    state: State,
    chunks: Chunks,
    lines: Lines,
    /// Channels that it follows, ascending, with the number of the last event of each.
    seen: Box<[(u32, u32)]>,
    /// When it began to connect, and what it must have to be complete.
    began: u64,
    missing: Option<u64>,
}

enum State {
    Connecting { request: Vec<u8> },
    Head { read: Vec<u8> },
    Open,
    Ended,
}

/// What an event of the socket led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    Same,
    Opened,
    Ended,
}

impl Client {
    /// `missing`: how much it comes back for, if that is what it does.
    pub fn new(stream: TcpStream, request: Vec<u8>, channels: &[u32], missing: Option<u64>) -> Self {
        Self {
            stream,
            state: State::Connecting { request },
            chunks: Chunks::None,
            lines: Lines::default(),
            seen: channels.iter().map(|channel| (*channel, 0)).collect(),
            began: clock::now(),
            missing,
        }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn on(
        &mut self,
        event: &Event,
        registry: &Registry,
        buffer: &mut [u8],
        size: usize,
        tally: &mut Tally,
    ) -> Now {
        let opened = matches!(self.state, State::Open);
        match self.advance(event, registry, buffer, size, tally) {
            Err(_) => {
                if matches!(self.state, State::Ended) {
                    return Now::Same;
                }
                let _ = registry.deregister(&mut self.stream);
                self.state = State::Ended;
                tally.counts.ended += 1;
                Now::Ended
            }
            Ok(()) if !opened && matches!(self.state, State::Open) => Now::Opened,
            Ok(()) => Now::Same,
        }
    }

    fn advance(
        &mut self,
        event: &Event,
        registry: &Registry,
        buffer: &mut [u8],
        size: usize,
        tally: &mut Tally,
    ) -> io::Result<()> {
        if let State::Connecting { request } = &self.state {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            if !event.is_writable() {
                return Ok(());
            }
            // A new connection has room for a request.
            self.stream.write_all(request)?;
            self.state = State::Head { read: Vec::new() };
            registry.reregister(&mut self.stream, event.token(), Interest::READABLE)?;
            return Ok(());
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.take(&buffer[..read], size, tally)?;
                    // Less than there was room for is all there is, but for the end.
                    if read < buffer.len() && !event.is_read_closed() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], size: usize, tally: &mut Tally) -> io::Result<()> {
        match &mut self.state {
            State::Head { read } => {
                read.extend_from_slice(bytes);
                let Some((length, chunked)) = head(read)? else { return Ok(()) };
                let body = read.split_off(length);
                self.chunks = Chunks::new(chunked);
                self.state = State::Open;
                self.body(&body, size, tally)
            }
            State::Open => self.body(bytes, size, tally),
            _ => Ok(()),
        }
    }

    fn body(&mut self, bytes: &[u8], size: usize, tally: &mut Tally) -> io::Result<()> {
        let now = clock::now();
        let Self { chunks, lines, seen, missing, began, .. } = self;
        chunks.take(bytes, |content| {
            lines.take(content, |line| {
                if line.starts_with(b"data:") && memchr(b'~', line).is_some() {
                    let number = Stamp::read(line, size).and_then(|stamp| {
                        let at = seen.binary_search_by_key(&stamp.channel, |(channel, _)| *channel).ok()?;
                        Some((stamp, &mut seen[at].1))
                    });
                    let Some((stamp, last)) = number else {
                        tally.counts.strange += 1;
                        return;
                    };
                    if stamp.number <= *last {
                        tally.counts.repeated += 1;
                        return;
                    }
                    tally.counts.delivered += 1;
                    tally.counts.skipped += u64::from(stamp.number - *last - 1);
                    *last = stamp.number;
                    if tally.measured.contains(&stamp.at) {
                        tally.latency.record(now.saturating_sub(stamp.at));
                    }
                    if let Some(missing) = missing {
                        *missing = missing.saturating_sub(1);
                        if *missing == 0 {
                            tally.latency.record(now - *began);
                        }
                    }
                } else if line.starts_with(b"event: $") && line != b"event: $welcome" {
                    tally.counts.notices += 1;
                }
            });
        });
        if chunks.over() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The length of an answer's head, and whether the body is chunked. None if it is not all there.
fn head(bytes: &[u8]) -> io::Result<Option<(usize, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(_) if response.code != Some(200) => {
            Err(io::Error::other(format!("answered {:?}", response.code)))
        }
        httparse::Status::Complete(length) => {
            let chunked = response.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case("transfer-encoding")
                    && header.value.eq_ignore_ascii_case(b"chunked")
            });
            Ok(Some((length, chunked)))
        }
    }
}
