//! As much of RFC 6455 as publishing over it needs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::args::Args;

pub fn handshake(args: &Args) -> Vec<u8> {
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: fanfare.v1.json\r\n\r\n",
        args.publish,
        args.publish_target()
    )
    .into_bytes()
}

/// `event` is a JSON object; `op` and `ref` are put in front of its fields.
pub fn publish(event: &[u8], out: &mut Vec<u8>) {
    const BEFORE: &[u8] = br#"{"op":"publish","ref":1,"#;
    let length = BEFORE.len() + event.len() - 1;
    out.push(0x81);
    match length {
        0..126 => out.push(0x80 | length as u8),
        126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    // A mask of zeros: the bytes stay as they are.
    out.extend([0; 4]);
    out.extend(BEFORE);
    out.extend(&event[1..]);
}

/// Takes one whole text message off the input; other frames are passed over.
pub fn message(input: &mut Vec<u8>) -> Option<String> {
    loop {
        let (head, length) = match input.get(1)? & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        let payload = input.get(head..head + length)?;
        let text = (input[0] == 0x81).then(|| String::from_utf8_lossy(payload).into_owned());
        input.drain(..head + length);
        if text.is_some() {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let mut input = vec![0x89, 0, 0x81, 2, b'o'];
        assert_eq!(message(&mut input), None);
        input.push(b'k');
        assert_eq!(message(&mut input).as_deref(), Some("ok"));
        assert!(input.is_empty());
    }
}
