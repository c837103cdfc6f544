//! One connection that publishes, over HTTP or a WebSocket, and reads what it is answered.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::args::{Args, Over};
use crate::tally::Latency;
use crate::{clock, socket, websocket};

pub struct Publisher {
    number: u32,
    token: Token,
    stream: TcpStream,
    /// Over a WebSocket: its handshake was answered.
    ready: bool,
    out: Vec<u8>,
    input: Vec<u8>,
    /// When each publish that has no answer yet was sent, and the first event that it had.
    waiting: VecDeque<u64>,
}

/// What became of publishes.
#[derive(Default)]
pub struct Answers {
    pub accepted: u64,
    pub refused: u64,
    /// Of the last one, for those who come back to it.
    pub last: String,
}

impl Publisher {
    pub fn new(number: u32, token: Token, args: &Args, registry: &Registry) -> io::Result<Self> {
        let mut stream = socket::connect(args.publish_target(), number)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut publisher = Self {
            number,
            token,
            stream,
            ready: args.over == Over::Http,
            out: Vec::new(),
            input: Vec::new(),
            waiting: VecDeque::new(),
        };
        if args.over == Over::Ws {
            publisher.out = websocket::handshake(args);
        }
        Ok(publisher)
    }

    pub fn free(&self, args: &Args) -> bool {
        self.ready && self.waiting.len() < args.depth
    }

    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// `body` is one event, or a JSON array of them.
    pub fn publish(&mut self, channel: u32, body: &[u8], args: &Args) -> io::Result<()> {
        match args.over {
            Over::Ws => websocket::publish(body, &mut self.out),
            Over::Http => {
                let path = args.publish.replace("{channel}", &channel.to_string());
                write!(
                    self.out,
                    "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
                    args.publish_target(),
                    args.content_type,
                    body.len()
                )?;
                self.out.extend_from_slice(body);
            }
        }
        self.waiting.push_back(clock::now());
        self.flush()
    }

    pub fn on(
        &mut self,
        event: &Event,
        args: &Args,
        registry: &Registry,
        receipts: &mut Latency,
        answers: &mut Answers,
    ) -> io::Result<()> {
        if event.is_writable() {
            self.flush()?;
        }
        if !event.is_readable() {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        let closed = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) => return Err(error),
            }
        };
        let mut close = closed;
        while let Some(answer) = self.answer(args)? {
            if !self.ready {
                self.ready = true;
                continue;
            }
            close |= answer.close;
            // Before it closes a connection without a request, a server may say so.
            let Some(sent) = self.waiting.pop_front() else { continue };
            receipts.record(clock::now() - sent);
            if answer.ok {
                answers.accepted += 1
            } else {
                answers.refused += 1
            }
            answers.last = answer.text;
        }
        if close {
            self.reconnect(args, registry)?;
        }
        Ok(())
    }

    fn answer(&mut self, args: &Args) -> io::Result<Option<Answer>> {
        if args.over == Over::Http || !self.ready {
            return http_answer(&mut self.input);
        }
        // What is no answer to a publish (the welcome, a ping) is passed over.
        while let Some(text) = websocket::message(&mut self.input) {
            if text.starts_with(r#"{"op":"published""#) || text.starts_with(r#"{"op":"error""#) {
                let ok = text.starts_with(r#"{"op":"published""#);
                return Ok(Some(Answer { ok, close: false, text }));
            }
        }
        Ok(None)
    }

    /// Some servers close after each publish.
    fn reconnect(&mut self, args: &Args, registry: &Registry) -> io::Result<()> {
        if self.waits() {
            return Err(io::Error::other(
                "the server closed the connection of a publish that it had not answered",
            ));
        }
        registry.deregister(&mut self.stream)?;
        *self = Self::new(self.number, self.token, args, registry)?;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(written) => sent += written,
                // Until it is writable.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}

struct Answer {
    ok: bool,
    close: bool,
    text: String,
}

/// Takes one whole answer off the input.
fn http_answer(input: &mut Vec<u8>) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(input).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::to_ascii_lowercase)
    };
    let code = response.code.unwrap_or_default();
    let close = value("connection").is_some_and(|value| value == "close");
    let body = if let Some(length) = value("content-length") {
        length.parse::<usize>().map_err(io::Error::other)?
    } else if value("transfer-encoding").is_some_and(|value| value == "chunked") {
        // Answers to publishes are short, and do not contain what ends them.
        match memchr::memmem::find(&input[head..], b"0\r\n\r\n") {
            Some(end) => end + 5,
            None => return Ok(None),
        }
    } else {
        0
    };
    if input.len() < head + body {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&input[head..head + body]).into_owned();
    input.drain(..head + body);
    // 101: the handshake of a WebSocket.
    Ok(Some(Answer { ok: matches!(code, 101 | 200..300), close, text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_by_one() {
        let mut input =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 503 No\r\nContent-Length: 0\r\n"
                .to_vec();
        let first = http_answer(&mut input).unwrap().unwrap();
        assert!(first.ok && !first.close);
        assert_eq!(first.text, "ok");
        assert!(http_answer(&mut input).unwrap().is_none(), "the second is not all there");
        input.extend(b"Connection: close\r\n\r\n");
        let second = http_answer(&mut input).unwrap().unwrap();
        assert!(!second.ok && second.close);
        assert!(input.is_empty());
    }
}
